/*
 * siphash.h
 *		SipHash-2-4 with 128 bits of output, by Aumasson and Bernstein.
 *
 * A keyed hash for short input: who does not know the key cannot make two
 * inputs collide, which the server's own hash functions do not promise.
 */
#ifndef POLL_SIPHASH_H
#define POLL_SIPHASH_H

#include "port/pg_bswap.h"

#define POLL_SIPHASH_ROTATE(x, n)	(((x) << (n)) | ((x) >> (64 - (n))))

static inline void
poll_siphash_rounds(uint64 v[4], int n)
{
	while (n-- > 0)
	{
		v[0] += v[1];
		v[1] = POLL_SIPHASH_ROTATE(v[1], 13) ^ v[0];
		v[0] = POLL_SIPHASH_ROTATE(v[0], 32);
		v[2] += v[3];
		v[3] = POLL_SIPHASH_ROTATE(v[3], 16) ^ v[2];
		v[0] += v[3];
		v[3] = POLL_SIPHASH_ROTATE(v[3], 21) ^ v[0];
		v[2] += v[1];
		v[1] = POLL_SIPHASH_ROTATE(v[1], 17) ^ v[2];
		v[2] = POLL_SIPHASH_ROTATE(v[2], 32);
	}
}

static inline uint64
poll_siphash_word(const unsigned char *data, Size length)
{
	uint64		word = 0;

	memcpy(&word, data, length);
#ifdef WORDS_BIGENDIAN
	word = pg_bswap64(word);
#endif
	return word;
}

static inline void
poll_siphash_absorb(uint64 v[4], uint64 word)
{
	v[3] ^= word;
	poll_siphash_rounds(v, 2);
	v[0] ^= word;
}

static inline void
poll_siphash(const uint64 key[2], const void *data, Size length, uint64 result[2])
{
	const unsigned char *p = data;
	Size		left = length;
	uint64		v[4];

	v[0] = key[0] ^ UINT64CONST(0x736f6d6570736575);
	v[1] = key[1] ^ UINT64CONST(0x646f72616e646f6d) ^ 0xee;
	v[2] = key[0] ^ UINT64CONST(0x6c7967656e657261);
	v[3] = key[1] ^ UINT64CONST(0x7465646279746573);
	for (; left >= 8; left -= 8, p += 8)
		poll_siphash_absorb(v, poll_siphash_word(p, 8));
	poll_siphash_absorb(v, poll_siphash_word(p, left) | (uint64) length << 56);

	v[2] ^= 0xee;
	poll_siphash_rounds(v, 4);
	result[0] = v[0] ^ v[1] ^ v[2] ^ v[3];
	v[1] ^= 0xdd;
	poll_siphash_rounds(v, 4);
	result[1] = v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif							/* POLL_SIPHASH_H */
