/*
 * siphash.c
 *		Prints src/siphash.h's hashes of 0 to 63 bytes, for t/018_siphash.pl.
 */
#include "postgres_fe.h"

#include "siphash.h"

int
main(void)
{
	uint64		key[2];
	unsigned char bytes[64];

	for (int i = 0; i < 64; i++)
		bytes[i] = i;
	memcpy(key, bytes, sizeof(key));
	for (int length = 0; length < 64; length++)
	{
		uint64		result[2];
		unsigned char digest[16];

		poll_siphash(key, bytes, length, result);
		memcpy(digest, result, sizeof(digest));
		for (int i = 0; i < 16; i++)
		{
			putchar("0123456789ABCDEF"[digest[i] / 16]);
			putchar("0123456789ABCDEF"[digest[i] % 16]);
		}
		putchar('\n');
	}
	return 0;
}
