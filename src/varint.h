/*
 * varint.h
 *		Unsigned integers in 1 to 10 bytes, 7 bits a byte, low bits first.
 */
#ifndef POLL_VARINT_H
#define POLL_VARINT_H

#define POLL_VARINT_MAX	10

/* Writes value and returns the place behind it. */
static inline char *
poll_varint_put(char *dst, uint64 value)
{
	while (value >= 0x80)
	{
		*dst++ = (char) (value | 0x80);
		value >>= 7;
	}
	*dst++ = (char) value;
	return dst;
}

/* Reads a value and moves *src behind it; false if there is none. */
static inline bool
poll_varint_get(const char **src, const char *end, uint64 *value)
{
	const char *s = *src;
	uint64		result = 0;

	for (int shift = 0; s < end && shift < 64; shift += 7)
	{
		unsigned char c = *s++;

		if (shift == 63 && c > 1)
			return false;
		result |= (uint64) (c & 0x7f) << shift;
		if (c < 0x80)
		{
			*src = s;
			*value = result;
			return true;
		}
	}
	return false;
}

#endif							/* POLL_VARINT_H */
