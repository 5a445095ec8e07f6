package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const (
	tagPage    = 1000     // tags that one request asks for
	maxPages   = 1000     // requests of one listing
	maxTagList = 16 << 20 // bytes of one answer: some registries give all tags at once
)

// Tags lists the tags of ref's repository that come after a tag ("" for all; it need not exist, but some registries refuse one
// that does not) as the registry itself pages and orders them, until each returns false. Some registries ignore after.
func (c *Client) Tags(ctx context.Context, ref Ref, after string, each func(page []string) (more bool)) error {
	query := url.Values{"n": {strconv.Itoa(tagPage)}}
	if after != "" {
		query.Set("last", after)
	}
	for range maxPages {
		tags, next, err := c.tags(ctx, ref, query)
		if err != nil {
			return fail(ctx, "list", ref, err)
		}
		if !each(tags) || next == nil {
			return nil
		}
		query = next
	}
	return fail(ctx, "list", ref, fmt.Errorf("the list of tags has no end: more than %d pages", maxPages))
}

// tags gets one page, and the query of the next one.
func (c *Client) tags(ctx context.Context, ref Ref, query url.Values) (tags []string, next url.Values, err error) {
	e, resp, err := c.ask(ctx, ref, call{method: http.MethodGet, path: "tags/list", query: query, scopes: []string{pullScope(ref.Repo)}}, http.StatusOK)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxTagList+1))
	if err != nil {
		return nil, nil, netError(e, err)
	}
	if len(b) > maxTagList {
		return nil, nil, damaged(e, "a list of tags of more than %d bytes", maxTagList)
	}
	var doc struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, nil, damaged(e, "%s instead of a list of tags", describe(resp, b))
	}
	if next = nextPage(resp.Header.Values("Link")); next == nil && len(doc.Tags) == tagPage && query.Get("last") != doc.Tags[tagPage-1] {
		// A full page without a link to the next one: of a registry that has no more, or of one that leaves the paging to us.
		next = url.Values{"n": query["n"], "last": {doc.Tags[tagPage-1]}}
	}
	return doc.Tags, next, nil
}

// nextPage takes the query from a header  Link: </v2/app/tags/list?last=x&n=1000>; rel="next". Nothing else of the address is used.
// What stands in the query is the registry's affair: a tag, or a token of its own.
func nextPage(links []string) url.Values {
	for _, l := range links {
		target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(l), "<"), ">")
		if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
			continue
		}
		u, err := url.Parse(target)
		if err != nil || u.RawQuery == "" {
			continue
		}
		if q, err := url.ParseQuery(u.RawQuery); err == nil {
			return q
		}
	}
	return nil
}
