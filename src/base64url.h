/*
 * base64url.h
 *		base64url without padding (RFC 4648, section 5), by the server's base64.
 */
#ifndef POLL_BASE64URL_H
#define POLL_BASE64URL_H

#include "common/base64.h"

/* dst has room for pg_b64_enc_len(len) bytes; returns how many it has got. */
static inline int
poll_base64url_encode(const void *src, int len, char *dst)
{
	int			n = pg_b64_encode(src, len, dst, pg_b64_enc_len(len));

	if (n < 0)
		elog(ERROR, "could not encode base64url");
	while (n > 0 && dst[n - 1] == '=')
		n--;
	for (int i = 0; i < n; i++)
	{
		if (dst[i] == '+')
			dst[i] = '-';
		else if (dst[i] == '/')
			dst[i] = '_';
	}
	return n;
}

#endif							/* POLL_BASE64URL_H */
