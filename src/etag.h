/*
 * etag.h
 *		Entity tags (RFC 9110).
 */
#ifndef POLL_ETAG_H
#define POLL_ETAG_H

#include "utils/array.h"
#include "utils/jsonb.h"

#include "digest.h"

/* The tag that begins so, up to and with its first quote, of the digest. */
extern text *poll_etag_make(const char *prefix, const PollDigest *digest);

/*
 * The tag of whatever the current role computes from the tables of the feeds,
 * under the active snapshot.  scope, variant: or NULL.  Errors: PT400, PT404.
 */
extern text *poll_etag_of_feeds(ArrayType *feeds, Jsonb *scope, const text *variant);

/*
 * Does the header match the tag?  any: * matches all of them.  Errors: 22023 it
 * is no tag.
 */
extern bool poll_if_none_match(text *header, text *etag, bool any);

#endif							/* POLL_ETAG_H */
