package s3

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"larder/internal/registry"
)

const (
	// askMachine bounds each question to a metadata service, which answers within the machine, or not at all.
	askMachine = 1 * time.Second
	// askSTS bounds the exchange of a web identity's token.
	askSTS = 30 * time.Second
)

// source is one place where credentials may be.
type source struct {
	name string
	credentials.Provider
}

// sources are the places where Amazon's own tools look, in their order.
func sources(c Config) []source {
	if c.AccessKey != "" {
		return []source{{"access_key_id", &credentials.Static{Value: credentials.Value{
			AccessKeyID: c.AccessKey, SecretAccessKey: c.SecretKey, SessionToken: c.SessionToken, SignerType: credentials.SignatureV4,
		}}}}
	}
	list := []source{{"AWS_ACCESS_KEY_ID", &credentials.EnvAWS{}}}
	profile := source{"the profile of AWS's settings", &credentials.FileAWSCredentials{}}
	if os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "" { // a pod's; such a machine's own role is none of its business
		return append(list, source{"the web identity of AWS_WEB_IDENTITY_TOKEN_FILE",
			&credentials.IAM{Region: c.Region, Client: &http.Client{Timeout: askSTS}}}, profile)
	}
	list = append(list, profile)
	container := os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != "" || os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") != ""
	if container || !strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		// The metadata service is beside the machine: no proxy leads there.
		client := &http.Client{Timeout: askMachine, Transport: &http.Transport{DisableKeepAlives: true}}
		list = append(list, source{"the role of this machine", &credentials.IAM{Region: c.Region, Client: client}})
	}
	return list
}

// chain takes the credentials of the first source that has any. Where there are none, requests go out unsigned, which a
// public bucket admits, and why remembers where it looked.
type chain struct {
	list []source

	mu     sync.Mutex
	chosen credentials.Provider
	found  credentials.Value
	none   bool
	tried  []string
}

func (c *chain) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tried = nil
	for _, s := range c.list {
		v, err := s.RetrieveWithCredContext(cc)
		if err == nil && v.AccessKeyID != "" && v.SecretAccessKey != "" {
			c.chosen, c.found, c.none = s.Provider, v, false
			return v, nil
		}
		if cc != nil && cc.Context != nil && cc.Context.Err() != nil {
			return credentials.Value{}, context.Cause(cc.Context)
		}
		told := s.name
		var sts credentials.ErrorResponse
		if errors.As(err, &sts) && sts.STSError.Message != "" { // it refused, and says why
			told += " (" + registry.Clean(sts.STSError.Message) + ")"
		}
		c.tried = append(c.tried, told)
	}
	c.none = true
	return credentials.Value{SignerType: credentials.SignatureAnonymous}, nil
}

// Retrieve is the older form of RetrieveWithCredContext; the interface wants both.
func (c *chain) Retrieve() (credentials.Value, error) { return c.RetrieveWithCredContext(nil) }

// IsExpired tells whether to ask again. That there are none is remembered: asking costs seconds on most machines.
func (c *chain) IsExpired() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.none && (c.chosen == nil || c.chosen.IsExpired())
}

// why tells where credentials were looked for, "" where some were found.
func (c *chain) why() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.none {
		return ""
	}
	return strings.Join(c.tried, ", ")
}

// redact takes the credentials that are in use out of a text.
func (c *chain) redact(s string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, secret := range []string{c.found.SecretAccessKey, c.found.SessionToken, c.found.AccessKeyID} {
		if len(secret) > 3 { // less would be found in any word
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	return s
}
