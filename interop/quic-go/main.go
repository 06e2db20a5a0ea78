// Command quic-go is a QUIC client or server that does what standard input says and tells standard output what came of it.
//
// Its language is that of docs/interop.md, which the peer of every other stack speaks too.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

const piece = 65536

var (
	listenOn      = flag.String("listen", "", "be a server on this address")
	connectTo     = flag.String("connect", "", "be a client of this address")
	certificate   = flag.String("certificate", "", "PEM file of this side's certificate; a client may have none")
	key           = flag.String("key", "", "PEM file of its key")
	alpn          = flag.String("alpn", "", "application protocol")
	askForOne     = flag.Bool("ask", false, "as a server, require a certificate of the client")
	streamWindow  = flag.Uint64("stream-window", 0, "credit of a stream in bytes; 0 is the stack's own choice")
	window        = flag.Uint64("window", 0, "credit of the connection in bytes; 0 is the stack's own choice")
	streams       = flag.Int64("streams", 0, "streams of each kind that the other side may have; 0 is the stack's own choice")
	datagram      = flag.Uint("datagram", 0, "bytes of a datagram, without looking for more; 0 is the stack's own choice")
	keyUpdate     = flag.Uint64("key-update", 0, "packets of one key; 0 is the stack's own choice")
	idle          = flag.Duration("idle", 30*time.Second, "idle time-out")
	retry         = flag.Bool("retry", false, "as a server, answer a first packet with Retry")
	resetKey      = flag.String("reset-key", "", "64 hex characters from which the tokens of stateless resets are made")
	allExtensions = flag.Bool("extensions", false, "announce every extension that the stack has")
)

func main() {
	flag.Parse()
	peer := &peer{writers: map[quic.StreamID]writer{}, readers: map[quic.StreamID]reader{}}
	if err := peer.run(); err != nil {
		say("failed %s", err)
		os.Exit(1)
	}
}

type writer interface {
	io.WriteCloser
	CancelWrite(quic.StreamErrorCode)
	Context() context.Context
}

type reader interface {
	io.Reader
	CancelRead(quic.StreamErrorCode)
}

// peer has one connection at a time: a server's is the one that came last.
type peer struct {
	mutex   sync.Mutex
	conn    *quic.Conn
	writers map[quic.StreamID]writer
	readers map[quic.StreamID]reader
}

func (p *peer) run() error {
	setKeyUpdate(*keyUpdate)
	security, err := tlsConfig()
	if err != nil {
		return err
	}
	address := *listenOn
	if address == "" {
		address = anyPort(*connectTo)
	}
	transport, err := newTransport(address)
	if err != nil {
		return err
	}
	if *listenOn != "" {
		listener, err := transport.Listen(security, config())
		if err != nil {
			return err
		}
		say("listening %d", transport.Conn.LocalAddr().(*net.UDPAddr).Port)
		go func() {
			for {
				conn, err := listener.Accept(context.Background())
				if err != nil {
					return
				}
				p.begin(conn)
			}
		}()
	} else {
		remote, err := net.ResolveUDPAddr("udp", *connectTo)
		if err != nil {
			return err
		}
		conn, err := transport.Dial(context.Background(), remote, security, config())
		if err != nil {
			sayClosed(err)
			return nil
		}
		p.begin(conn)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := p.obey(strings.Fields(lines.Text())); err != nil {
			say("failed %s", err)
		}
	}
	return lines.Err()
}

func (p *peer) begin(conn *quic.Conn) {
	p.mutex.Lock()
	p.conn = conn
	p.mutex.Unlock()
	say("connected")
	go func() {
		for {
			stream, err := conn.AcceptStream(context.Background())
			if err != nil {
				return
			}
			p.mutex.Lock()
			p.writers[stream.StreamID()] = stream
			p.mutex.Unlock()
			p.accept(stream.StreamID(), stream)
		}
	}()
	go func() {
		for {
			stream, err := conn.AcceptUniStream(context.Background())
			if err != nil {
				return
			}
			p.accept(stream.StreamID(), stream)
		}
	}()
	go func() {
		<-conn.Context().Done()
		sayClosed(context.Cause(conn.Context()))
	}()
}

func (p *peer) accept(id quic.StreamID, stream reader) {
	say("accepted %d", id)
	p.receive(id, stream)
}

func (p *peer) receive(id quic.StreamID, stream reader) {
	p.mutex.Lock()
	p.readers[id] = stream
	p.mutex.Unlock()
	go func() {
		digest := sha256.New()
		size, err := io.CopyBuffer(digest, onlyReader{stream}, make([]byte, piece))
		var abandoned *quic.StreamError
		switch {
		case err == nil:
			say("received %d %d %s", id, size, hex.EncodeToString(digest.Sum(nil)))
		case errors.As(err, &abandoned) && abandoned.Remote:
			say("reset %d %d", id, abandoned.ErrorCode)
		}
	}()
}

func (p *peer) obey(words []string) error {
	if len(words) == 0 {
		return nil
	}
	p.mutex.Lock()
	conn := p.conn
	p.mutex.Unlock()
	switch {
	case conn == nil:
		return errors.New("there is no connection")
	case words[0] == "open" && len(words) == 4:
		return p.open(conn, words[1] == "uni", words[2], words[3])
	case words[0] == "answer" && len(words) == 4:
		id, err := number(words[1])
		if err != nil {
			return err
		}
		return p.send(quic.StreamID(id), words[2], words[3])
	case words[0] == "reset" && len(words) == 3, words[0] == "stop" && len(words) == 3:
		return p.abandon(words)
	case words[0] == "close" && len(words) >= 2:
		code, err := number(words[1])
		if err != nil {
			return err
		}
		return conn.CloseWithError(quic.ApplicationErrorCode(code), strings.Join(words[2:], " "))
	case words[0] == "migrate":
		return migrate(conn)
	}
	return fmt.Errorf("no such command: %s", words[0])
}

func (p *peer) open(conn *quic.Conn, unidirectional bool, size, end string) error {
	var id quic.StreamID
	if unidirectional {
		stream, err := conn.OpenUniStreamSync(context.Background())
		if err != nil {
			return err
		}
		id = stream.StreamID()
		p.mutex.Lock()
		p.writers[id] = stream
		p.mutex.Unlock()
	} else {
		stream, err := conn.OpenStreamSync(context.Background())
		if err != nil {
			return err
		}
		id = stream.StreamID()
		p.mutex.Lock()
		p.writers[id] = stream
		p.mutex.Unlock()
		p.receive(id, stream)
	}
	say("opened %d", id)
	return p.send(id, size, end)
}

func (p *peer) send(id quic.StreamID, size, end string) error {
	left, err := number(size)
	if err != nil {
		return err
	}
	p.mutex.Lock()
	stream := p.writers[id]
	p.mutex.Unlock()
	if stream == nil {
		return fmt.Errorf("no stream %d", id)
	}
	go func() {
		err := sendPattern(stream, left)
		if err == nil && end == "fin" {
			err = stream.Close()
			if err == nil {
				say("sent %d", id)
			}
		} else if err == nil {
			<-stream.Context().Done()
			err = context.Cause(stream.Context())
		}
		var abandoned *quic.StreamError
		if errors.As(err, &abandoned) && abandoned.Remote {
			say("stopped %d %d", id, abandoned.ErrorCode)
		}
	}()
	return nil
}

func (p *peer) abandon(words []string) error {
	id, err := number(words[1])
	if err != nil {
		return err
	}
	code, err := number(words[2])
	if err != nil {
		return err
	}
	p.mutex.Lock()
	writer, reader := p.writers[quic.StreamID(id)], p.readers[quic.StreamID(id)]
	p.mutex.Unlock()
	if words[0] == "reset" && writer != nil {
		writer.CancelWrite(quic.StreamErrorCode(code))
	} else if words[0] == "stop" && reader != nil {
		reader.CancelRead(quic.StreamErrorCode(code))
	} else {
		return fmt.Errorf("no stream %d", id)
	}
	return nil
}

// migrate moves a client to a new socket, as RFC 9000, section 9 has it: the new path is probed first.
func migrate(conn *quic.Conn) error {
	transport, err := newTransport(anyPort(*connectTo))
	if err != nil {
		return err
	}
	path, err := conn.AddPath(transport)
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := path.Probe(limit); err != nil {
		return err
	}
	if err := path.Switch(); err != nil {
		return err
	}
	say("migrated %d", transport.Conn.LocalAddr().(*net.UDPAddr).Port)
	return nil
}

// sendPattern sends size bytes, each of which is the exclusive or of the bytes of its offset.
func sendPattern(stream io.Writer, size uint64) error {
	buffer := make([]byte, piece)
	for offset := uint64(0); offset < size; offset += piece {
		for i := range buffer {
			at := offset + uint64(i)
			buffer[i] = byte(at ^ at>>8 ^ at>>16 ^ at>>24)
		}
		if _, err := stream.Write(buffer[:min(piece, size-offset)]); err != nil {
			return err
		}
	}
	return nil
}

// anyPort is the loopback address to call remote from.
func anyPort(remote string) string {
	if strings.HasPrefix(remote, "[") {
		return "[::1]:0"
	}
	return "127.0.0.1:0"
}

func newTransport(address string) (*quic.Transport, error) {
	local, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", local)
	if err != nil {
		return nil, err
	}
	transport := &quic.Transport{Conn: conn}
	if *retry {
		transport.VerifySourceAddress = func(net.Addr) bool { return true }
	}
	if *resetKey != "" {
		secret, err := hex.DecodeString(*resetKey)
		if err != nil || len(secret) != 32 {
			return nil, errors.New("the reset key is not 64 hex characters")
		}
		transport.StatelessResetKey = (*quic.StatelessResetKey)(secret)
	}
	return transport, nil
}

func tlsConfig() (*tls.Config, error) {
	security := &tls.Config{
		NextProtos:         []string{*alpn},
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // the other side's certificate is self-signed; its key is proved all the same
	}
	if *certificate != "" {
		pair, err := tls.LoadX509KeyPair(*certificate, *key)
		if err != nil {
			return nil, err
		}
		security.Certificates = []tls.Certificate{pair}
	}
	if *askForOne {
		security.ClientAuth = tls.RequireAnyClientCert
	}
	return security, nil
}

func config() *quic.Config {
	return &quic.Config{
		InitialStreamReceiveWindow:       *streamWindow,
		MaxStreamReceiveWindow:           *streamWindow,
		InitialConnectionReceiveWindow:   *window,
		MaxConnectionReceiveWindow:       *window,
		MaxIncomingStreams:               *streams,
		MaxIncomingUniStreams:            *streams,
		MaxIdleTimeout:                   *idle,
		InitialPacketSize:                uint16(*datagram),
		DisablePathMTUDiscovery:          *datagram != 0,
		EnableDatagrams:                  *allExtensions,
		EnableStreamResetPartialDelivery: *allExtensions,
	}
}

func sayClosed(err error) {
	var application *quic.ApplicationError
	var transport *quic.TransportError
	var timeout *quic.IdleTimeoutError
	var reset *quic.StatelessResetError
	switch {
	case errors.As(err, &application):
		say("closed application %s %d %s", side(application.Remote), application.ErrorCode, application.ErrorMessage)
	case errors.As(err, &transport):
		say("closed transport %s %d %s", side(transport.Remote), transport.ErrorCode, transport.ErrorMessage)
	case errors.As(err, &timeout):
		say("closed idle local 0")
	case errors.As(err, &reset):
		say("closed stateless-reset remote 0")
	default:
		say("closed other local 0 %v", err)
	}
}

func side(remote bool) string {
	if remote {
		return "remote"
	}
	return "local"
}

func number(word string) (uint64, error) { return strconv.ParseUint(word, 10, 62) }

var output sync.Mutex

func say(format string, arguments ...any) {
	output.Lock()
	defer output.Unlock()
	fmt.Println(strings.ReplaceAll(fmt.Sprintf(format, arguments...), "\n", " "))
}

// onlyReader hides whatever else a stream can do from io.Copy.
type onlyReader struct{ io.Reader }
