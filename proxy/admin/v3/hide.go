package v3

import (
	"headgate/conf/resource"
	"headgate/conf/store"
)

// shown is the document as reads show it (contract section 1.3): the private keys of certificates never leave, the one of an upstream
// leaves sealed where there is a sealer; everything else is as it was sent.
func (a *API) shown(k resource.Kind, item store.Item) []byte {
	switch k.Segment {
	case sslsSegment:
		return withoutKeys(item)
	case upstreamsSegment:
		if a.Sealer != nil {
			return a.sealed(item)
		}
	}
	return item.Value
}

// written is the document as the answer to a write shows it: as the store of the contract's gateway has it, with its secrets sealed.
func (a *API) written(k resource.Kind, item store.Item) []byte {
	if a.Sealer == nil {
		return a.shown(k, item)
	}
	return a.sealed(item)
}

// sealed falls back to an empty document: what cannot be sealed is not shown.
func (a *API) sealed(item store.Item) []byte {
	value, err := a.Sealer.SealDocument(item.Key, item.Value)
	if err != nil {
		a.Logf("admin: %s cannot be shown: %v", item.Key, err)
		return []byte("{}")
	}
	return value
}

func withoutKeys(item store.Item) []byte {
	doc, err := decodeStored(&item)
	if err != nil {
		return []byte("{}")
	}
	delete(doc, "key")
	delete(doc, "keys")
	value, err := resource.Encode(doc)
	if err != nil {
		return []byte("{}")
	}
	return value
}
