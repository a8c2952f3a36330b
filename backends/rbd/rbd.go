// Package rbd keeps objects as images in a pool of a Ceph cluster, in the layout of
// Glance's rbd store: the image <key>, in RADOS objects of 8 MiB, with a protected
// snapshot "snap" that is read, and that others clone from. A pool may be shared with
// Glance.
//
// It needs the library librbd, and is built with the build tag ceph; without it, Open
// says how to build it. This package knows all of a store's configuration either way.
//
// Versions. The version of an object is <image id>@<snapshot id>. The cluster gives
// neither a second time in a pool, and a snapshot's bytes do not change. So an image that
// was removed and made anew under the same name is another version, also one that was
// restored from a backup.
//
// Reading. The bytes are those of the snapshot. What was removed reads as zeros in RBD,
// without an error: so where a read finds nothing but zeros, and where an image has a
// parent, the snapshot is looked at afterwards. A snapshot that is there then was there
// during the read, and while it is there the image cannot be removed.
//
// Claims. An upload writes to an image of a name of its own, glanced-upload-<token>,
// which is made after the claim was recorded; Commit makes the snapshot, then gives the
// image its name. The token is in the image's metadata too, so that an image is known to
// be of this upload whatever its name.
//
// Calls. Those of librbd wait for the cluster and take no context. Each has a timeout
// there (rados_osd_op_timeout), and a place among so many at a time here; who called does
// not wait for it longer than its own context lasts. A cluster that hangs holds so many
// threads and no more.
package rbd

import "errors"

// ErrNotBuilt is what Open says in a program that was built without librbd.
var ErrNotBuilt = errors.New("this program was built without Ceph's librbd: install it and build anew (on Debian 12: make deps build TAGS=ceph,pacific)")
