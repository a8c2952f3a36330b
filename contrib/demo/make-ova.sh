#!/usr/bin/env bash
# Makes an OVA of one vmdk, with an OVF descriptor and a manifest, as appliances are
# shipped.
#
#   make-ova.sh DISK.vmdk OUT.ova
set -euo pipefail

disk=$(realpath "$1")
out=$(realpath -m "$2")
work=$(mktemp -d "$(dirname "$out")/ova.XXXXXX")
trap 'rm -rf "$work"' EXIT

cat >"$work/appliance.ovf" <<EOF
<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References><File ovf:id="file1" ovf:href="disk.vmdk" ovf:size="$(stat -c %s "$disk")"/></References>
  <DiskSection>
    <Info>Virtual disks</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="$(qemu-img info --output=json "$disk" | python3 -c 'import json, sys; print(json.load(sys.stdin)["virtual-size"])')"
      ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <VirtualSystem ovf:id="appliance"><Info>An appliance</Info></VirtualSystem>
</Envelope>
EOF
ln -s "$disk" "$work/disk.vmdk"
cd "$work"
for f in appliance.ovf disk.vmdk; do
	printf 'SHA256(%s)= %s\n' "$f" "$(sha256sum "$f" | cut -d' ' -f1)"
done >appliance.mf
tar --format=ustar --dereference -cf "$out" appliance.ovf appliance.mf disk.vmdk
