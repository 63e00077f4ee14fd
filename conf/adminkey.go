package conf

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// MinKeyLength is the smallest number of characters of an admin key.
const MinKeyLength = 32

const (
	// GeneratedKeyName is the name of the key that EnsureAdminKey makes.
	GeneratedKeyName = "generated"

	generatedKeyBytes = 32
	maxSecretFile     = 64 * KiB
)

// Expired reports whether the key is refused at now.
func (k AdminKey) Expired(now time.Time) bool { return !k.Expires.IsZero() && !now.Before(k.Expires) }

// DaysLeft returns the days until the key expires, negative afterwards; ok is false for a key that never does.
func (k AdminKey) DaysLeft(now time.Time) (days float64, ok bool) {
	if k.Expires.IsZero() {
		return 0, false
	}
	return k.Expires.Sub(now).Hours() / 24, true
}

// ReadSecretFile returns the content of a file that holds a secret. It refuses a file that other users can read, one that is not a
// regular file, and one of more than 64 KiB.
func ReadSecretFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The mode is asked of the open file, so it cannot be exchanged between the check and the read.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: expected a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode %#o lets other users read or change this secret, expected 0600 or 0400 (chmod 600 %s)", path, mode, path)
	}
	content, err := io.ReadAll(io.LimitReader(f, int64(maxSecretFile)+1))
	if err != nil {
		return nil, err
	}
	if Size(len(content)) > maxSecretFile {
		return nil, fmt.Errorf("%s: expected at most %s", path, maxSecretFile)
	}
	return content, nil
}

// EnsureAdminKey gives the Admin API a key when the file names none and keys are required: the one in admin.key_file, or a new one
// of 32 random bytes (hex) that is stored there with mode 0600. The key is added with role admin and the name "generated".
// generatedPath is the key file when a key was made in this call, else "". Nothing is added on error.
func (c *Config) EnsureAdminKey() (generatedPath string, err error) {
	if !c.Admin.Enabled || !c.Admin.KeyRequired || len(c.Admin.Keys) > 0 {
		return "", nil
	}
	path := c.Admin.KeyFile
	content, err := ReadSecretFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		content, err = createKeyFile(path)
		generatedPath = path
	}
	if err != nil {
		return "", fmt.Errorf("admin.key_file: %w", err)
	}
	key := Secret(strings.TrimSpace(string(content)))
	if msg := keyProblem(key); msg != "" {
		return "", fmt.Errorf("admin.key_file: %s: %s; remove the file to have a new key made", path, msg)
	}
	c.Admin.Keys = []AdminKey{{Name: GeneratedKeyName, Key: key, Role: RoleAdmin}}
	return generatedPath, nil
}

// createKeyFile stores a new key at path, which must not exist, and returns it. When it fails no file is left behind.
func createKeyFile(path string) ([]byte, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	random := make([]byte, generatedKeyBytes)
	rand.Read(random) // never fails: the runtime ends the process instead
	content := hex.AppendEncode(nil, random)
	content = append(content, '\n')
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return content, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// keyProblem says why key cannot be an admin key, without quoting it, or "".
func keyProblem(key Secret) string {
	s := key.Reveal()
	if n := len(s); n < MinKeyLength {
		return fmt.Sprintf("expected at least %d characters, got %d", MinKeyLength, n)
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return "expected printable ASCII characters without spaces (the key travels in a header, a query or a cookie)"
		}
	}
	return ""
}

// published reports whether key is one of those that APISIX's documentation and default configuration show.
func (k AdminKey) published() bool {
	return k.Key.Equal("edd1c9f034335f136f87ad84b625c8f1") || k.Key.Equal("4054f7cf07e344346cd3f287985e76a2")
}
