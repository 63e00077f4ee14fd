package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// udpSize is the largest answer over UDP that is asked for: it fits the smallest packet that every IPv6 link carries.
	udpSize = 1232
	// maxRecords bounds what one answer may bring.
	maxRecords = 1024
	// maxAliases bounds the chain of CNAME records from a name to its addresses.
	maxAliases = 16
)

// target is one SRV record (RFC 2782).
type target struct {
	name             string
	port             uint16
	priority, weight uint16
}

// reply is what a name server knows of a name and type. A reply without records is definite: there are none.
type reply struct {
	addrs   []netip.Addr
	targets []target
	ttl     uint32 // seconds: the least of the records; of a reply without any, what the zone says of such
	alias   string // where a chain ends of which the server did not say more, "" when there is none
}

func (r *reply) empty() bool { return len(r.addrs) == 0 && len(r.targets) == 0 }

// Reasons why a server's word is not used.
var (
	errForeign   = errors.New("not the answer to this question")
	errTruncated = errors.New("truncated")
	errFormat    = errors.New("the server does not understand the question")
)

// noName is a name that does not exist, or has no such records: a definite answer, unlike all other errors.
type noName struct {
	name string
	why  string
	ttl  uint32 // for how long that is so, in seconds
}

func (e *noName) Error() string { return e.name + ": " + e.why }

func appendQuery(dst []byte, id uint16, q dnsmessage.Question, extended bool) ([]byte, error) {
	b := dnsmessage.NewBuilder(dst, dnsmessage.Header{ID: id, RecursionDesired: true})
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(q); err != nil {
		return nil, err
	}
	if extended {
		if err := b.StartAdditionals(); err != nil {
			return nil, err
		}
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(udpSize, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, err
		}
		if err := b.OPTResource(h, dnsmessage.OPTResource{}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// parse reads an answer. errForeign is for what somebody else may have sent; the answer may still come.
func parse(msg []byte, id uint16, q dnsmessage.Question) (reply, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.ID != id || !h.Response {
		return reply{}, errForeign
	}
	// A server that cannot read the question may leave it out.
	if h.RCode == dnsmessage.RCodeFormatError || h.RCode == dnsmessage.RCodeNotImplemented {
		return reply{}, fmt.Errorf("%w (%s)", errFormat, h.RCode)
	}
	asked, err := p.Question()
	if err != nil || asked.Type != q.Type || asked.Class != q.Class || !strings.EqualFold(asked.Name.String(), q.Name.String()) {
		return reply{}, errForeign
	}
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone {
		return reply{}, errForeign
	}
	switch {
	case h.Truncated:
		return reply{}, errTruncated
	case h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError:
		return reply{}, fmt.Errorf("the server says %s", strings.TrimPrefix(h.RCode.String(), "RCode"))
	}
	a, err := answers(&p, q.Type)
	if err != nil {
		return reply{}, err
	}
	r := a.of(q.Name.String())
	if r.empty() {
		r.ttl = min(r.ttl, denied(&p))
		if h.RCode == dnsmessage.RCodeNameError {
			return r, &noName{q.Name.String(), "no such name", r.ttl}
		}
	}
	return r, nil
}

// section is the answer section of a message, by owner.
type section struct {
	aliases map[string]alias
	records map[string]*reply
}

type alias struct {
	to  string
	ttl uint32
}

const noTTL = 1<<32 - 1

// answers reads the answer section: records of the type asked for, and aliases.
func answers(p *dnsmessage.Parser, t dnsmessage.Type) (*section, error) {
	s := &section{aliases: map[string]alias{}, records: map[string]*reply{}}
	for n := 0; ; n++ {
		h, err := p.AnswerHeader()
		switch {
		case err == dnsmessage.ErrSectionDone:
			return s, nil
		case err != nil:
			return nil, fmt.Errorf("a broken answer: %w", err)
		case n >= maxRecords:
			return nil, fmt.Errorf("an answer with more than %d records", maxRecords)
		}
		if h.Class != dnsmessage.ClassINET || h.Type != t && h.Type != dnsmessage.TypeCNAME {
			if err := p.SkipAnswer(); err != nil {
				return nil, fmt.Errorf("a broken answer: %w", err)
			}
			continue
		}
		if err := s.add(p, h); err != nil {
			return nil, fmt.Errorf("a broken answer: %w", err)
		}
	}
}

func (s *section) add(p *dnsmessage.Parser, h dnsmessage.ResourceHeader) error {
	owner := strings.ToLower(h.Name.String())
	if h.Type == dnsmessage.TypeCNAME {
		r, err := p.CNAMEResource()
		s.aliases[owner] = alias{strings.ToLower(r.CNAME.String()), h.TTL}
		return err
	}
	at := s.records[owner]
	if at == nil {
		at = &reply{ttl: noTTL}
		s.records[owner] = at
	}
	at.ttl = min(at.ttl, h.TTL)
	switch h.Type {
	case dnsmessage.TypeA:
		r, err := p.AResource()
		at.addrs = append(at.addrs, netip.AddrFrom4(r.A))
		return err
	case dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		at.addrs = append(at.addrs, netip.AddrFrom16(r.AAAA).Unmap())
		return err
	default:
		r, err := p.SRVResource()
		at.targets = append(at.targets, target{r.Target.String(), r.Port, r.Priority, r.Weight})
		return err
	}
}

// of follows the aliases from name to its records.
func (s *section) of(name string) reply {
	ttl := uint32(noTTL)
	at, followed := strings.ToLower(name), 0
	for range maxAliases {
		if r := s.records[at]; r != nil {
			r.ttl = min(r.ttl, ttl)
			return *r
		}
		a, is := s.aliases[at]
		if !is {
			break
		}
		at, ttl = a.to, min(ttl, a.ttl)
		followed++
	}
	r := reply{ttl: ttl}
	if followed > 0 {
		r.alias = at
	}
	return r
}

// denied returns for how long the zone says that records are not there (RFC 2308 section 5), from its SOA record behind the answers.
func denied(p *dnsmessage.Parser) uint32 {
	for range maxRecords {
		h, err := p.AuthorityHeader()
		if err != nil {
			break
		}
		if h.Type != dnsmessage.TypeSOA {
			if p.SkipAuthority() != nil {
				break
			}
			continue
		}
		soa, err := p.SOAResource()
		if err != nil {
			break
		}
		return min(h.TTL, soa.MinTTL)
	}
	return 0
}

// framed puts the length in front of a message, as it is sent over TCP (RFC 1035 section 4.2.2).
func framed(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg))), msg...)
}
