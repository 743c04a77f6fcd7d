/*
 * digest.h
 *		Hashes of values, that depend on what they are and on nothing else.
 */
#ifndef POLL_DIGEST_H
#define POLL_DIGEST_H

#include "common/sha2.h"
#include "lib/stringinfo.h"

#define POLL_DIGEST_LENGTH	16

typedef struct PollDigest
{
	uint8		chain[PG_SHA256_DIGEST_LENGTH]; /* of what came before; at
												 * first zeros */
	StringInfoData buffer;		/* what came since */
} PollDigest;

/* Allocates in the current memory context. */
extern void poll_digest_begin(PollDigest *digest);

/* Adds bytes; what is added next is not told from them, so add lengths too. */
extern void poll_digest_add(PollDigest *digest, const void *data, Size length);

/* Adds a text, or NULL. */
extern void poll_digest_add_text(PollDigest *digest, const text *value);

/* Adds a value. */
extern void poll_digest_add_value(PollDigest *digest, Oid type, Datum value);

/* Adds the names and types of the columns, if the value is a row. */
extern void poll_digest_add_names(PollDigest *digest, Oid type, Datum value);

/* The digest of all that was added so far. */
extern void poll_digest_result(const PollDigest *digest, uint8 result[POLL_DIGEST_LENGTH]);

#endif							/* POLL_DIGEST_H */
