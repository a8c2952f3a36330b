//go:build !ceph

package rbd

import (
	"errors"
	"strings"
	"testing"
)

func TestAProgramWithoutLibrbdSaysHowToBuildOneWithIt(t *testing.T) {
	s, err := Open(Config{MonHost: "127.0.0.1"})
	if s != nil || !errors.Is(err, ErrNotBuilt) || !strings.Contains(err.Error(), "make deps build TAGS=ceph,pacific") {
		t.Errorf("%v, %v", s, err)
	}
}
