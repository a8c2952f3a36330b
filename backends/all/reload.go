package all

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"reflect"
)

// maxFile is how much of a file is looked at for whether it has changed, bytes.
const maxFile = 1 << 20

// Differences are the keys, by their toml tags, of which two structs of one type have
// other values.
func Differences(a, b any) (names []string) {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		name := x.Type().Field(i).Tag.Get("toml")
		if name != "" && name != "-" && !reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			names = append(names, name)
		}
	}
	return names
}

// Reloaded is what of c can take the place of was, the configuration of the same store,
// while the store is in use: all of it, or where it says that the store is somewhere
// else, only the keys of every store. fixed are the keys that keep their values then.
func (c Config) Reloaded(was Config) (next Config, fixed []string) {
	next = c
	switch k, err := find(was.Type); {
	case err != nil || c.Type != was.Type:
		fixed = []string{"type"}
	case reflect.DeepEqual(c.Own, was.Own):
		return c, nil
	case k.moved == nil || k.moved(was.Own, c.Own):
		fixed = Differences(reflect.ValueOf(was.Own).Elem().Interface(), reflect.ValueOf(c.Own).Elem().Interface())
	default:
		return c, nil
	}
	next.Type, next.Own = was.Type, was.Own
	return next, fixed
}

// Reopens tells whether the store has to be opened anew to be as c says; was and files
// are its configuration and Files of when it was opened.
func (c Config) Reopens(was Config, files string) bool {
	k, err := find(c.Type)
	if err != nil || k.moved == nil {
		return false
	}
	return c.ReadOnly != was.ReadOnly || !reflect.DeepEqual(c.Own, was.Own) || c.Files() != files
}

// Files is a digest of the files whose content is a part of the configuration, as keys
// are that can be rotated; "" = there are none.
func (c Config) Files() string {
	k, err := find(c.Type)
	if err != nil || k.files == nil {
		return ""
	}
	all := sha256.New()
	for _, path := range k.files(c.Own) {
		one := sha256.New()
		if f, err := os.Open(path); err == nil { // why it cannot be read is for Open to say
			io.Copy(one, io.LimitReader(f, maxFile))
			f.Close()
		}
		all.Write(one.Sum(nil))
	}
	return hex.EncodeToString(all.Sum(nil))
}
