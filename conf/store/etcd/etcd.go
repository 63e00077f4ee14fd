package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"

	"headgate/conf/store"
)

const (
	// maxRequest bounds what is sent in one piece; the server's own limit is lower (1.5 MiB unless configured).
	maxRequest = 64 << 20
	// longestPause bounds the pauses between tries to connect, so that recovery is noticed within seconds.
	longestPause = 2 * time.Second
	// unaryTries bounds the client's own tries, of reads and of requests with a token that has run out. There are few, because their
	// last error says what is wrong and running out of time does not.
	unaryTries = 3
	// maxLeases bounds the look-ups of leases in one List.
	maxLeases = 64
	// startupPause makes the first pause of Open about as long as etcd takes to start.
	startupPause = 4
	// smallPage is the size in bytes below which the next page of a List is asked for with more documents.
	smallPage = 2 << 20
	// listTries is how often List begins again when what it reads is compacted meanwhile.
	listTries = 3
)

// Store implements store.Store and store.Reporter.
//
// Items that List and Watch show may end (a lease of etcd is on them) though their Expires is zero: an end is known for what this
// store wrote and for up to 64 leases in a List. Their deletion comes as an event in any case. Lifetimes are rounded up to whole
// seconds and to the server's minimum (2 s with its defaults).
type Store struct {
	client   *clientv3.Client
	keys     keys
	timeout  time.Duration
	progress time.Duration
	pageSize int64

	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	watchers sync.WaitGroup

	mu     sync.Mutex
	status store.Status // without Lag
	proof  time.Time    // last time that a watch was known to be current
}

// Open connects to etcd and makes sure that it answers. When it does not, Open tries again o.StartupRetry times and then fails with
// store.ErrUnavailable; once it has succeeded, etcd may come and go.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	config := clientv3.Config{
		Endpoints: o.Endpoints, Username: o.User, Password: o.Password,
		DialTimeout: o.Timeout, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: o.Timeout,
		MaxCallSendMsgSize: maxRequest,
		MaxUnaryRetries:    unaryTries,
		Logger:             zap.NewNop(), // what matters is returned or in Status
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longestPause},
			MinConnectTimeout: o.Timeout,
		}), grpc.WithChainUnaryInterceptor(failFast)},
	}
	if o.TLS != nil {
		creds, err := o.TLS.credentials()
		if err != nil {
			return nil, fmt.Errorf("etcd: TLS: %w", err)
		}
		config.DialOptions = append(config.DialOptions, grpc.WithTransportCredentials(creds))
	}
	s := &Store{
		keys:    keys{prefix: o.Prefix + "/", keep: o.Keep},
		timeout: o.Timeout, progress: o.Progress, pageSize: o.pageSize,
		proof: time.Now(),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for try := 0; ; try++ {
		err := s.connect(ctx, config)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil || try == o.StartupRetry || isDenied(err) {
			s.cancel()
			return nil, fmt.Errorf("%w: etcd: %s: %w", store.ErrUnavailable, strings.Join(o.Endpoints, ", "), err)
		}
		pause(ctx, try+startupPause)
	}
}

// failFast makes calls fail with the reason when there is no connection, where the client would let them wait for one until their
// time is over.
func failFast(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, o ...grpc.CallOption) error {
	return call(ctx, method, request, reply, conn, append(o, grpc.WaitForReady(false))...)
}

// connect makes the client and asks etcd something. The client is closed when that fails.
func (s *Store) connect(ctx context.Context, config clientv3.Config) error {
	client, err := clientv3.New(config)
	if err != nil {
		return err
	}
	s.client = client
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if _, err := s.head(ctx); err != nil {
		return errors.Join(err, s.closeClient())
	}
	return nil
}

// head returns the current revision of the whole cluster: no member that lags behind answers it.
func (s *Store) head(ctx context.Context) (uint64, error) {
	r, err := s.client.Get(ctx, s.keys.full(ownDir), clientv3.WithKeysOnly())
	if err != nil {
		return 0, s.failed(err)
	}
	return s.heard(r.Header), nil
}

// List implements store.Store. Large stores are read in pages, all of one revision.
func (s *Store) List(ctx context.Context) ([]store.Item, uint64, error) {
	if err := s.ready(ctx); err != nil {
		return nil, 0, err
	}
	for try := 1; ; try++ {
		items, revision, err := s.list(ctx)
		switch {
		case err == nil:
			return items, revision, nil
		case ctx.Err() != nil:
			return nil, 0, ctx.Err()
		case !errors.Is(err, rpctypes.ErrCompacted) || try == listTries:
			return nil, 0, fmt.Errorf("%w: etcd: %w", store.ErrUnavailable, s.failed(err))
		}
	}
}

func (s *Store) list(ctx context.Context) ([]store.Item, uint64, error) {
	var items []store.Item
	leases := map[int64][]int{} // positions in items
	next, revision, limit := s.keys.prefix, int64(0), s.pageSize
	for {
		page, err := s.page(ctx, next, revision, limit)
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = page.Header.Revision
			items = make([]store.Item, 0, page.Count)
		}
		s.heard(page.Header)
		size := 0
		for _, kv := range page.Kvs {
			size += len(kv.Value)
			it, ok := s.keys.item(kv)
			if !ok {
				continue
			}
			if kv.Lease != 0 {
				leases[kv.Lease] = append(leases[kv.Lease], len(items))
			}
			items = append(items, it)
		}
		if !page.More || len(page.Kvs) == 0 {
			break
		}
		if size < smallPage {
			limit *= 2 // for each page etcd counts the keys that are left
		}
		next = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
	s.readLeases(ctx, items, leases)
	// etcd orders by whole keys, and one prefix does not change the order.
	return items, uint64(revision), nil
}

// page reads up to limit keys from next on as they were at revision, 0 = now.
func (s *Store) page(ctx context.Context, next string, revision, limit int64) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.client.Get(ctx, next, clientv3.WithRange(s.keys.end()), clientv3.WithLimit(limit), clientv3.WithRev(revision))
}

// readLeases fills in when items end, as far as that is cheap.
func (s *Store) readLeases(ctx context.Context, items []store.Item, leases map[int64][]int) {
	if len(leases) > maxLeases {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for lease, positions := range leases {
		r, err := s.client.TimeToLive(ctx, clientv3.LeaseID(lease))
		if err != nil {
			return
		}
		if r.TTL <= 0 {
			continue // about to be deleted
		}
		expires := time.Now().Add(time.Duration(r.TTL) * time.Second)
		for _, i := range positions {
			items[i].Expires = expires
		}
	}
}

// ready waits until there is a connection, so that a failure afterwards is known to be one of an exchange. While etcd cannot be
// reached at all it fails at once.
func (s *Store) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.ctx.Err(); err != nil {
		return fmt.Errorf("%w: etcd: closed", store.ErrUnavailable)
	}
	wait, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	conn := s.client.ActiveConnection()
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.Idle:
			conn.Connect()
		case connectivity.TransientFailure, connectivity.Shutdown:
			return s.away()
		}
		if !conn.WaitForStateChange(wait, state) {
			if err := ctx.Err(); err != nil {
				return err
			}
			return s.away()
		}
	}
}

// away is the error of an operation that began nothing.
func (s *Store) away() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Reachable = false
	if s.status.LastError == "" {
		s.status.LastError = "no connection"
	}
	return fmt.Errorf("%w: etcd: no connection to %s: %s", store.ErrUnavailable, strings.Join(s.client.Endpoints(), ", "), s.status.LastError)
}

// heard takes note of an answer and returns the revision that it shows.
func (s *Store) heard(h *pb.ResponseHeader) uint64 {
	revision := uint64(h.GetRevision())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Reachable = true
	s.status.Revision = max(s.status.Revision, revision)
	return revision
}

// failed takes note of a failed exchange and returns err.
func (s *Store) failed(err error) error {
	if errors.Is(err, context.Canceled) {
		return err // by us
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Reachable = isRefusal(err) // then etcd has answered
	s.status.LastError = err.Error()
	return err
}

// rewound takes note that etcd is at a revision older than one known: it was put back from a copy, or is another one.
func (s *Store) rewound(revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Revision = revision
}

// current takes note that a watch has delivered everything up to now.
func (s *Store) current() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proof = time.Now()
}

// seen returns the latest revision known.
func (s *Store) seen() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status.Revision
}

// Status implements store.Reporter. Before etcd 3.4.25 and 3.5.8 the server may call a watch current that is still catching up; Lag
// is then too low for that time. No event is lost by it.
func (s *Store) Status() store.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	status.Lag = time.Since(s.proof)
	return status
}

// Close implements store.Store. Watches have ended when it returns.
func (s *Store) Close() error {
	s.cancel()
	s.watchers.Wait()
	return s.closeClient()
}

func (s *Store) closeClient() error {
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("etcd: %w", err)
	}
	return nil
}

// isDenied reports whether etcd answered, and trying again is no use.
func isDenied(err error) bool {
	return slices.ContainsFunc([]error{rpctypes.ErrAuthFailed, rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty}, func(denial error) bool {
		return errors.Is(err, denial)
	})
}

var (
	_ store.Store    = (*Store)(nil)
	_ store.Reporter = (*Store)(nil)
)
