// Package seal encrypts the secret fields of documents the way APISIX stores them (contract section 8), so that both read each
// other's stores: base64 of AES-128-CBC with PKCS#7 padding, where one 16 byte key is key and initialisation vector.
//
// The format has no authentication and equal texts give equal ciphertexts: it keeps secrets out of dumps and backups and is no
// protection against whoever can write the store.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// KeyLength is the length of every key of a keyring, in bytes.
const KeyLength = 16

// pemStart begins a private key in clear text.
const pemStart = "---"

// ErrForeign is the refusal of a private key that is neither PEM nor sealed under a key of the keyring.
var ErrForeign = errors.New("failed to decrypt previous encrypted key")

// Fields returns the dotted paths of a plugin's secrets within its configuration (APISIX: encrypt_fields): in routes and alike, and
// metadata; and in consumers. A nil consumer list means that the plugin is configured the same way everywhere.
type Fields = func(plugin string) (route, consumer []string)

// Sealer seals and opens documents. It is immutable and safe for concurrent use.
type Sealer struct {
	keys   []key
	fields Fields
}

type key struct {
	block cipher.Block
	iv    [KeyLength]byte
}

// New returns a sealer that seals with the first key of keyring and opens with any of them. fields must be safe for concurrent use.
func New(keyring []string, fields Fields) (*Sealer, error) {
	if len(keyring) == 0 {
		return nil, errors.New("the keyring is empty")
	}
	s := &Sealer{fields: fields}
	for i, text := range keyring {
		if len(text) != KeyLength {
			return nil, fmt.Errorf("keyring[%d]: a key has %d bytes, this one has %d", i, KeyLength, len(text))
		}
		block, err := aes.NewCipher([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("keyring[%d]: %w", i, err)
		}
		k := key{block: block}
		copy(k.iv[:], text)
		s.keys = append(s.keys, k)
	}
	return s, nil
}

// Seal encrypts the secrets of doc, the document under key ("routes/1"), in place. doc has the types that schema.DecodeJSON returns.
// References to secrets kept elsewhere ($secret://, $env://) stay, and so do private keys that are sealed already; plugin fields are
// taken for clear text whatever they look like. The error is ErrForeign with the place in front; doc is then as it was.
func (s *Sealer) Seal(key string, doc map[string]any) error {
	_, err := s.seal(key, doc)
	return err
}

// seal does what Seal says and reports whether doc changed.
func (s *Sealer) seal(key string, doc map[string]any) (sealed bool, err error) {
	if err := s.checkPrivateKeys(key, doc); err != nil {
		return false, err
	}
	s.walk(key, doc, func(text string, private bool) string {
		if isReference(text) || private && !strings.HasPrefix(text, pemStart) {
			return text
		}
		sealed = true
		return s.SealText(text)
	})
	return sealed, nil
}

// Open decrypts the secrets of doc, the document under key, in place and reports whether there were any. What no key of the keyring
// opens stays as it is: it was never sealed, or sealed elsewhere.
func (s *Sealer) Open(key string, doc map[string]any) (opened bool) {
	s.walk(key, doc, func(text string, private bool) string {
		if isReference(text) || private && strings.HasPrefix(text, pemStart) {
			return text
		}
		clear, ok := s.OpenText(text)
		if !ok {
			return text
		}
		opened = true
		return clear
	})
	return opened
}

// isReference reports whether text names a secret instead of being one. APISIX takes the scheme in both cases.
func isReference(text string) bool {
	for _, scheme := range [...]string{"$secret://", "$env://"} {
		if len(text) >= len(scheme) && strings.EqualFold(text[:len(scheme)], scheme) {
			return true
		}
	}
	return false
}

// SealText encrypts one value.
func (s *Sealer) SealText(text string) string {
	k := &s.keys[0]
	pad := aes.BlockSize - len(text)%aes.BlockSize
	b := make([]byte, 0, len(text)+pad)
	b = append(b, text...)
	b = append(b, bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(k.block, k.iv[:]).CryptBlocks(b, b)
	return base64.StdEncoding.EncodeToString(b)
}

// OpenText decrypts one value with the first key that gives a text with intact padding. A wrong key does so once in 256 times; that
// the text has to be UTF-8 makes it rare.
func (s *Sealer) OpenText(sealed string) (text string, ok bool) {
	if len(sealed) == 0 || len(sealed)%4 != 0 {
		return "", false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(sealed)
	if err != nil || len(b) == 0 || len(b)%aes.BlockSize != 0 {
		return "", false
	}
	out := make([]byte, len(b))
	for i := range s.keys {
		k := &s.keys[i]
		cipher.NewCBCDecrypter(k.block, k.iv[:]).CryptBlocks(out, b)
		if text, ok := unpad(out); ok && utf8.Valid(text) {
			return string(text), true
		}
	}
	return "", false
}

func unpad(b []byte) ([]byte, bool) {
	pad := int(b[len(b)-1])
	if pad == 0 || pad > aes.BlockSize {
		return nil, false
	}
	text := b[:len(b)-pad]
	for _, c := range b[len(text):] {
		if int(c) != pad {
			return nil, false
		}
	}
	return text, true
}
