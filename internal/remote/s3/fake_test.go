package s3

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a server of objects in memory, for what the real one cannot be made to do.
type fake struct {
	conditions string           // "honoured", "ignored", "refused" (501), "half" (If-Match is ignored)
	noRanges   bool             // answer 200 with everything
	page       int              // objects per list, 0 for 1000
	now        func() time.Time // of objects' dates

	mu      sync.Mutex
	objects map[string]*object
	uploads map[string]map[int][]byte
	count   map[string]int // requests by method, with "?" where they have a query
}

type object struct {
	body   []byte
	date   time.Time
	digest string // X-Amz-Meta-Larder-Digest
}

func (o *object) etag() string {
	sum := md5.Sum(o.body)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// serve starts a fake behind wrap and gives the Config of its bucket.
func (f *fake) serve(t *testing.T, wrap func(http.Handler) http.Handler) Config {
	f.objects, f.uploads, f.count = map[string]*object{}, map[string]map[int][]byte{}, map[string]int{}
	if f.now == nil {
		f.now = time.Now
	}
	var h http.Handler = f
	if wrap != nil {
		h = wrap(f)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return Config{Bucket: "fake", Region: testRegion, Endpoint: server.URL, PathStyle: true, AccessKey: testKey, SecretKey: testSecret}
}

func answerError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	sum := sha256.Sum256(body)
	if want := req.Header.Get("X-Amz-Content-Sha256"); want != "UNSIGNED-PAYLOAD" && want != hex.EncodeToString(sum[:]) {
		answerError(w, http.StatusBadRequest, "XAmzContentSHA256Mismatch", "the body is another one")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key, inside := strings.CutPrefix(req.URL.Path, "/fake/")
	if !inside {
		answerError(w, http.StatusNotFound, "NoSuchBucket", "no such bucket")
		return
	}
	query := req.URL.Query()
	kind := req.Method
	if len(query) > 0 {
		kind += "?"
	}
	f.count[kind]++
	switch {
	case kind == "GET?":
		f.list(w, query)
	case query.Has("uploads"):
		id := strconv.Itoa(len(f.uploads) + 1)
		f.uploads[id] = map[int][]byte{}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
	case query.Has("uploadId"):
		f.multipart(w, req, key, query, body)
	case kind == "PUT":
		f.put(w, req, key, body)
	case kind == "DELETE":
		delete(f.objects, key)
		w.WriteHeader(http.StatusNoContent)
	default:
		o, there := f.objects[key]
		if !there {
			answerError(w, http.StatusNotFound, "NoSuchKey", "no such key")
			return
		}
		if f.noRanges {
			req.Header.Del("Range")
		}
		w.Header().Set("ETag", o.etag())
		w.Header().Set("X-Amz-Meta-Larder-Digest", o.digest)
		http.ServeContent(w, req, "", o.date, bytes.NewReader(o.body))
	}
}

func (f *fake) put(w http.ResponseWriter, req *http.Request, key string, body []byte) {
	match, none := req.Header.Get("If-Match"), req.Header.Get("If-None-Match")
	there := f.objects[key]
	if f.conditions == "refused" && match+none != "" {
		answerError(w, http.StatusNotImplemented, "NotImplemented", "a header you provided implies functionality that is not implemented")
		return
	}
	if f.conditions == "honoured" && match != "" && (there == nil || there.etag() != match) || f.conditions != "ignored" && none != "" && there != nil {
		answerError(w, http.StatusPreconditionFailed, "PreconditionFailed", "at least one of the preconditions did not hold")
		return
	}
	if from := req.Header.Get("X-Amz-Copy-Source"); from != "" {
		name, _ := url.PathUnescape(from)
		body = f.objects[strings.TrimPrefix(name, "fake/")].body
		fmt.Fprint(w, "<CopyObjectResult><ETag>x</ETag></CopyObjectResult>")
	}
	o := &object{body: body, date: f.now(), digest: req.Header.Get("X-Amz-Meta-Larder-Digest")}
	f.objects[key] = o
	w.Header().Set("ETag", o.etag())
}

func (f *fake) multipart(w http.ResponseWriter, req *http.Request, key string, query url.Values, body []byte) {
	id := query.Get("uploadId")
	parts, there := f.uploads[id]
	switch {
	case !there:
		answerError(w, http.StatusNotFound, "NoSuchUpload", "no such upload")
	case req.Method == http.MethodPut:
		n, _ := strconv.Atoi(query.Get("partNumber"))
		parts[n] = body
		w.Header().Set("ETag", fmt.Sprintf(`"part-%d"`, n))
	case req.Method == http.MethodDelete:
		delete(f.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	default:
		var whole []byte
		for _, n := range slices.Sorted(maps.Keys(parts)) {
			whole = append(whole, parts[n]...)
		}
		f.objects[key] = &object{body: whole, date: f.now()}
		delete(f.uploads, id)
		fmt.Fprint(w, "<CompleteMultipartUploadResult><Bucket>fake</Bucket><ETag>x</ETag></CompleteMultipartUploadResult>")
	}
}

func (f *fake) list(w http.ResponseWriter, query url.Values) {
	type entry struct{ Key, ETag, LastModified string }
	var result struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		Contents              []entry
		CommonPrefixes        []struct{ Prefix string }
	}
	page := f.page
	if page == 0 {
		page = 1000
	}
	prefix, dirs := query.Get("prefix"), map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		rest, ours := strings.CutPrefix(key, prefix)
		if !ours || key <= query.Get("continuation-token") {
			continue
		}
		if dir, _, nested := strings.Cut(rest, "/"); nested && query.Get("delimiter") == "/" {
			if !dirs[dir] {
				dirs[dir] = true
				result.CommonPrefixes = append(result.CommonPrefixes, struct{ Prefix string }{prefix + dir + "/"})
			}
			continue
		}
		if len(result.Contents) == page {
			result.IsTruncated, result.NextContinuationToken = true, result.Contents[page-1].Key
			break
		}
		o := f.objects[key]
		result.Contents = append(result.Contents, entry{key, o.etag(), o.date.UTC().Format(time.RFC3339)})
	}
	b, err := xml.Marshal(result)
	if err != nil {
		panic(err)
	}
	w.Write(b)
}
