//go:build ceph

package rbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	librbd "github.com/ceph/go-ceph/rbd"

	"glanced/backends"
)

// What RBD has of names, in the pool (Ceph's documentation, "RBD image format 2"): an
// object rbd_id.<name> holds the image's id, and the object rbd_directory has the keys
// name_<name> and id_<id>. A rename writes the new rbd_id, then the directory, then
// removes the old rbd_id. One that was cut off leaves two of them, and the directory says
// which is the name.
const (
	idPrefix  = "rbd_id."
	directory = "rbd_directory"
)

// maxText is the longest id or name that is believed, bytes.
const maxText = 4 << 10

// encoded is a text as RBD stores it: its length, 32 bits, little-endian, and its bytes.
func encoded(text string) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), text...)
}

func decoded(p []byte) (string, error) {
	if len(p) < 4 || uint64(binary.LittleEndian.Uint32(p)) != uint64(len(p)-4) {
		return "", errors.New("the cluster's record of the image's name is damaged")
	}
	return string(p[4:]), nil
}

// idOf is the id of the image called name; "" = there is none.
func idOf(ses *session, name string) (string, error) {
	buf := make([]byte, maxText)
	n, err := ses.ioctx.Read(idPrefix+name, buf, 0)
	if is(err, syscall.ENOENT) {
		return "", nil
	} else if err != nil {
		return "", explain("look for the image's id", err)
	}
	return decoded(buf[:n])
}

// nameOf is the name of the image with an id, as the directory has it; "" = none.
func nameOf(ses *session, id string) (string, error) {
	op := rados.CreateReadOp()
	defer op.Release()
	step := op.GetOmapValuesByKeys([]string{"id_" + id})
	if err := operation(op.Operate(ses.ioctx, directory, rados.OperationNoFlag)); is(err, syscall.ENOENT) {
		return "", nil
	} else if err != nil {
		return "", explain("look for the image's name", err)
	}
	kv, err := step.Next()
	if err != nil || kv == nil {
		return "", explain("look for the image's name", err)
	}
	return decoded(kv.Value)
}

// tidy removes what a rename that was cut off left of a name: an rbd_id that still has
// this id.
func tidy(ses *session, name, id string) error {
	op := rados.CreateWriteOp()
	defer op.Release()
	op.AssertExists()
	op.CmpExt(encoded(id), 0)
	op.Remove()
	err := operation(op.Operate(ses.ioctx, idPrefix+name, rados.OperationNoFlag))
	if no, ok := errno(err); is(err, syscall.ENOENT) || ok && no >= maxErrno {
		return nil // nothing is there, or another id, which the comparison tells by -4095-offset
	}
	return explain("remove a name that is not used", err)
}

// maxErrno begins the error numbers by which a comparison says where it failed
// (rados_write_op_cmpext).
const maxErrno = 4095

// rename gives the image with this id the name to, unless it has it. It was made under
// the name from. Another image of that name is ErrExists. It makes calls.
func rename(ses *session, from, to, id string) error {
	for range 3 {
		there, err := idOf(ses, to)
		if err != nil {
			return err
		}
		switch there {
		case "":
			err := librbd.GetImage(ses.ioctx, from).Rename(to)
			if err != nil && !is(err, syscall.EEXIST) {
				return explain("give the image its name", err)
			}
			if err == nil {
				return nil
			}
		case id:
			name, err := nameOf(ses, id)
			if err != nil {
				return err
			}
			if name == to {
				return tidy(ses, from, id)
			}
			if err := tidy(ses, to, id); err != nil {
				return err
			}
		default:
			return backends.ErrExists
		}
	}
	return fmt.Errorf("%w: or one of an old format", backends.ErrExists)
}
