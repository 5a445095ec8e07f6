package s3

import (
	"fmt"
	"net"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/s3utils"

	"larder/internal/fault"
)

// What an absent attribute stands for, as in BuildKit's type=s3 cache.
const (
	defaultBlobs     = "blobs/"
	defaultManifests = "manifests/"
	defaultTouch     = 24 * time.Hour
	defaultParallel  = 4
	// regionOfOthers is what servers other than Amazon's call their only region, where nothing else is said.
	regionOfOthers = "us-east-1"
)

// Config says which bucket is meant and how to get in.
type Config struct {
	Bucket   string
	Region   string
	Prefix   string // before every key, as it is: "team/" makes a directory, "team" does not
	Endpoint string // URL of a server other than Amazon's, without a path; http:// is plain HTTP
	// PathStyle puts the bucket into the path of each URL, not into the host name.
	PathStyle bool
	Blobs     string // prefix of blobs, after Prefix
	Manifests string // prefix of documents, after Prefix

	// AccessKey, SecretKey and SessionToken come before what the environment, the profile and the machine offer.
	AccessKey, SecretKey, SessionToken string
	// CAFile holds certificates of authorities that are trusted beside the system's; "" for none.
	CAFile string

	// Touch is the age from which a blob that a document names is made young again, so that a bucket's lifecycle rule can
	// expire what nobody uses. 0 leaves it alone.
	Touch time.Duration
	// Parallel is how many parts of one blob are sent at once; 0 means 4.
	Parallel int
}

// attributes are those of BuildKit's type=s3 cache. What larder gives no meaning has a nil reader: type, mode, name and
// ignore-error are the caller's, retrying is done above a store, and nothing here signs Accept-Encoding.
var attributes = map[string]func(c *Config, v string) error{
	"type": nil, "mode": nil, "name": nil, "ignore-error": nil,
	"retry_mode": nil, "retry_max_attempts": nil, "disable_accept_encoding": nil,

	"bucket":            text(func(c *Config) *string { return &c.Bucket }),
	"region":            text(func(c *Config) *string { return &c.Region }),
	"prefix":            text(func(c *Config) *string { return &c.Prefix }),
	"blobs_prefix":      text(func(c *Config) *string { return &c.Blobs }),
	"manifests_prefix":  text(func(c *Config) *string { return &c.Manifests }),
	"endpoint_url":      text(func(c *Config) *string { return &c.Endpoint }),
	"access_key_id":     text(func(c *Config) *string { return &c.AccessKey }),
	"secret_access_key": text(func(c *Config) *string { return &c.SecretKey }),
	"session_token":     text(func(c *Config) *string { return &c.SessionToken }),
	"use_path_style": func(c *Config, v string) (err error) {
		if c.PathStyle, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("say true or false")
		}
		return nil
	},
	"touch_refresh": func(c *Config, v string) (err error) {
		if c.Touch, err = time.ParseDuration(v); err != nil || c.Touch < 0 {
			return fmt.Errorf("say a duration, such as 24h, or 0 for never")
		}
		return nil
	},
	"upload_parallelism": func(c *Config, v string) (err error) {
		if c.Parallel, err = strconv.Atoi(v); err != nil || c.Parallel < 1 {
			return fmt.Errorf("say a number from 1 on")
		}
		return nil
	},
}

func text(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error {
		*field(c) = v
		return nil
	}
}

// FromAttrs reads the attributes of a type=s3 cache, by BuildKit's names. getenv gives AWS_BUCKET, AWS_REGION (or
// AWS_DEFAULT_REGION), AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) and AWS_CA_BUNDLE, where attributes are silent. Errors are
// of kind Usage and never hold a value that could be a secret.
func FromAttrs(attrs map[string]string, getenv func(string) string) (Config, error) {
	c := Config{Blobs: defaultBlobs, Manifests: defaultManifests, Touch: defaultTouch, CAFile: getenv("AWS_CA_BUNDLE")}
	names := make([]string, 0, len(attrs))
	for name := range attrs {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		read, known := attributes[name]
		if !known {
			return Config{}, fault.Errorf(fault.Usage, "type=s3: there is no attribute %q (there are %s)", name, meaningful())
		}
		if read == nil {
			continue
		}
		if err := read(&c, attrs[name]); err != nil {
			return Config{}, fault.Errorf(fault.Usage, "type=s3: %s=%s: %w", name, attrs[name], err)
		}
	}
	for _, from := range []struct {
		field *string
		vars  []string
	}{
		{&c.Bucket, []string{"AWS_BUCKET"}},
		{&c.Region, []string{"AWS_REGION", "AWS_DEFAULT_REGION"}},
		{&c.Endpoint, []string{"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}},
	} {
		for _, v := range from.vars {
			if *from.field == "" {
				*from.field = getenv(v)
			}
		}
	}
	if _, said := attrs["use_path_style"]; !said && c.Endpoint != "" {
		c.PathStyle = hostHasNoNames(c.Endpoint)
	}
	return c, c.check()
}

// meaningful lists the attributes for a message.
func meaningful() string {
	var list []string
	for name, read := range attributes {
		if read != nil {
			list = append(list, name)
		}
	}
	sort.Strings(list)
	return strings.Join(list, ", ")
}

// check says what is missing or cannot be, and fills in the region where the endpoint does not care.
func (c *Config) check() error {
	switch {
	case c.Bucket == "":
		return fault.Errorf(fault.Usage, "an S3 cache needs a bucket: say bucket=NAME, or set AWS_BUCKET")
	case c.Region == "" && c.Endpoint == "":
		return fault.Errorf(fault.Usage, "an S3 cache needs the region of bucket %s: say region=NAME, or set AWS_REGION", c.Bucket)
	case (c.AccessKey == "") != (c.SecretKey == ""):
		return fault.Errorf(fault.Usage, "S3 bucket %s: access_key_id and secret_access_key belong together, and only one of them is given", c.Bucket)
	case c.SessionToken != "" && c.AccessKey == "":
		return fault.Errorf(fault.Usage, "S3 bucket %s: a session_token needs its access_key_id and secret_access_key", c.Bucket)
	}
	if err := s3utils.CheckValidBucketName(c.Bucket); err != nil {
		return fault.Errorf(fault.Usage, "S3 bucket %.100q: %w", c.Bucket, err)
	}
	if c.Region == "" {
		c.Region = regionOfOthers
	}
	if c.Endpoint != "" {
		if _, err := endpointURL(c.Endpoint); err != nil {
			return fault.Errorf(fault.Usage, "S3 bucket %s: %w", c.Bucket, err)
		}
	}
	return nil
}

// endpointURL reads an endpoint. An error does not repeat what could hold a password.
func endpointURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("endpoint_url is a URL such as https://minio.example:9000")
	case u.User != nil:
		return nil, fmt.Errorf("endpoint_url cannot hold a user name and password: say access_key_id and secret_access_key")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("endpoint_url %s://%s cannot go on with a path (a prefix is said by prefix=)", u.Scheme, u.Host)
	}
	return u, nil
}

// server names an endpoint by its host and port, in one way however it is written; Amazon's own have no name.
func server(u *url.URL) string {
	host, port := strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), u.Port()
	if strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn") {
		return ""
	}
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(host, port) + "/"
}

// hostHasNoNames tells an endpoint that cannot have a host name for each bucket: an address, or a name without a domain.
func hostHasNoNames(endpoint string) bool {
	u, err := endpointURL(endpoint)
	if err != nil {
		return false
	}
	return net.ParseIP(u.Hostname()) != nil || !strings.Contains(u.Hostname(), ".")
}
