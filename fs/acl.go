package fs

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"
)

// aclName is the attribute in which the kernel looks for an ACL.
const aclName = "system.posix_acl_access"

// The parts of an ACL, as the kernel has them in linux/posix_acl.h and
// linux/posix_acl_xattr.h.
const (
	aclVersion uint32 = 2

	aclUserObj  uint16 = 0x01
	aclUser     uint16 = 0x02
	aclGroupObj uint16 = 0x04
	aclGroup    uint16 = 0x08
	aclMask     uint16 = 0x10
	aclOther    uint16 = 0x20

	aclNoID uint32 = 1<<32 - 1

	aclEnter uint16 = 5 // r-x
	aclNone  uint16 = 0
)

// newACL is the root folder's ACL (acl(5)): users, by id, are let in or kept out, and
// members of groups are let in who are not among them. nil where there is nobody to
// let in.
func newACL(users map[uint32]bool, groups []uint32) []byte {
	if len(groups) == 0 && !slices.Contains(slices.Collect(maps.Values(users)), true) {
		return nil
	}
	acl := binary.LittleEndian.AppendUint32(nil, aclVersion)
	add := func(tag, perm uint16, id uint32) {
		acl = binary.LittleEndian.AppendUint16(acl, tag)
		acl = binary.LittleEndian.AppendUint16(acl, perm)
		acl = binary.LittleEndian.AppendUint32(acl, id)
	}
	add(aclUserObj, aclEnter, aclNoID)
	for _, id := range slices.Sorted(maps.Keys(users)) {
		if users[id] {
			add(aclUser, aclEnter, id)
		} else {
			add(aclUser, aclNone, id)
		}
	}
	add(aclGroupObj, aclNone, aclNoID)
	for _, id := range slices.Sorted(slices.Values(groups)) {
		add(aclGroup, aclEnter, id)
	}
	add(aclMask, aclEnter, aclNoID)
	add(aclOther, aclNone, aclNoID)
	return acl
}

var _ gofuse.NodeGetxattrer = (*root)(nil)

// Getxattr gives the kernel the ACL, which it then holds every caller to.
func (r *root) Getxattr(_ context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	if name != aclName || r.acl == nil {
		return 0, unix.ENODATA
	}
	return fit(dest, r.acl)
}
