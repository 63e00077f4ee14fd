package embedded

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"headgate/conf/store"
)

// A document is stored under its key as
//
//	version   1 byte   recordVersion
//	checksum  4 bytes  CRC-32C of the key and of everything that follows
//	create    8 bytes  CreateRevision
//	mod       8 bytes  ModRevision
//	expires   8 bytes  Unix nanoseconds, 0 = never
//	value     the rest
//
// and the state of the whole store under one key of the meta bucket as
//
//	revision  8 bytes
//	count     8 bytes  number of documents
//	digest    4 bytes  all documents' checksums, xored: a document that is missing or doubled shows
//	clean     1 byte   1 = closed properly
//	checksum  4 bytes  CRC-32C of the above
//
// Integers are big-endian. The pages of the medium carry no checksums of their own, hence these.
const (
	recordVersion = 1
	recordHeader  = 1 + 4 + 3*8
	stateSize     = 8 + 8 + 4 + 1 + 4
)

var (
	errRecord = errors.New("a document fails its checksum")
	errState  = errors.New("the store's state fails its checksum")
)

type state struct {
	revision uint64
	count    uint64
	digest   uint32
	clean    bool
}

func castagnoli(parts ...[]byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // made once by the library
	var sum uint32
	for _, p := range parts {
		sum = crc32.Update(sum, table, p)
	}
	return sum
}

func (s state) encode() []byte {
	b := make([]byte, 0, stateSize)
	b = binary.BigEndian.AppendUint64(b, s.revision)
	b = binary.BigEndian.AppendUint64(b, s.count)
	b = binary.BigEndian.AppendUint32(b, s.digest)
	clean := byte(0)
	if s.clean {
		clean = 1
	}
	b = append(b, clean)
	return binary.BigEndian.AppendUint32(b, castagnoli(b))
}

func decodeState(b []byte) (state, error) {
	if len(b) != stateSize || binary.BigEndian.Uint32(b[stateSize-4:]) != castagnoli(b[:stateSize-4]) {
		return state{}, errState
	}
	return state{
		revision: binary.BigEndian.Uint64(b),
		count:    binary.BigEndian.Uint64(b[8:]),
		digest:   binary.BigEndian.Uint32(b[16:]),
		clean:    b[20] == 1,
	}, nil
}

// encodeRecord returns the stored form of it and its checksum.
func encodeRecord(it store.Item) ([]byte, uint32) {
	b := make([]byte, recordHeader, recordHeader+len(it.Value))
	b[0] = recordVersion
	binary.BigEndian.PutUint64(b[5:], it.CreateRevision)
	binary.BigEndian.PutUint64(b[13:], it.ModRevision)
	if !it.Expires.IsZero() {
		binary.BigEndian.PutUint64(b[21:], uint64(it.Expires.UnixNano()))
	}
	b = append(b, it.Value...)
	sum := castagnoli([]byte(it.Key), b[5:])
	binary.BigEndian.PutUint32(b[1:], sum)
	return b, sum
}

// decodeRecord returns the item, whose Value is a part of b, and its checksum.
func decodeRecord(key, b []byte) (store.Item, uint32, error) {
	if len(b) < recordHeader || b[0] != recordVersion {
		return store.Item{}, 0, errRecord
	}
	sum := castagnoli(key, b[5:])
	if sum != binary.BigEndian.Uint32(b[1:]) {
		return store.Item{}, 0, errRecord
	}
	it := store.Item{
		Key:            string(key),
		Value:          b[recordHeader:],
		CreateRevision: binary.BigEndian.Uint64(b[5:]),
		ModRevision:    binary.BigEndian.Uint64(b[13:]),
	}
	if ns := int64(binary.BigEndian.Uint64(b[21:])); ns != 0 {
		it.Expires = time.Unix(0, ns)
	}
	return it, sum, nil
}
