package s3

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"larder/internal/fault"
	"larder/internal/registry"
)

const (
	maxStall  = 1 * time.Minute // how long a connection may move nothing before it is given up
	maxAnswer = 2 * time.Minute // how long a server may think before its answer begins
	maxPause  = 5 * time.Minute // the longest pause that a server may ask for
)

// transport is the connections of one Store. It remembers until when the server asked to be left alone, which minio-go's errors
// do not tell.
type transport struct {
	*http.Transport
	stall time.Duration
	until atomic.Int64 // Unix time, ns
}

// newTransport trusts the system's authorities and those in caFile.
func newTransport(caFile string) (*transport, error) {
	tr := &transport{stall: maxStall, Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: maxAnswer,
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true, // a blob that is gzip must arrive as gzip
	}}
	if caFile == "" {
		return tr, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "AWS_CA_BUNDLE: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fault.Errorf(fault.Usage, "AWS_CA_BUNDLE: there is no certificate in %s", caFile)
	}
	tr.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return tr, nil
}

// RoundTrip sends a request and sees to it that it does not hang.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	guard := registry.Guard{Base: t.Transport, Stall: t.stall, Answer: maxAnswer}
	resp, err := guard.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		if s, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
			t.until.Store(time.Now().Add(min(time.Duration(s)*time.Second, maxPause)).UnixNano())
		}
	}
	return resp, nil
}

// pause is for how long the server still wants to be left alone.
func (t *transport) pause() time.Duration {
	return max(0, time.Until(time.Unix(0, t.until.Load())))
}
