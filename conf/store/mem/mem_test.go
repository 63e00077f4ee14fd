package mem

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"headgate/conf/store"
	"headgate/conf/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return Open() })
}

func TestClosed(t *testing.T) {
	s := Open()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.List(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}
