/*
 * network.c
 *		The network that stands for a client in rate limits.
 *
 * Who has an IPv6 address has 2^64 of them, so a limit by address would be none;
 * one by network is.  An IPv4 address that came through an IPv6 socket
 * (::ffff:192.0.2.1) is that IPv4 address.
 */
#include "postgres.h"

#include <sys/socket.h>

#include "fmgr.h"
#include "utils/builtins.h"

#include "compat.h"
#include "guc.h"
#include "network.h"

PG_FUNCTION_INFO_V1(poll_ext_client_network);

static bool
is_mapped_ipv4(const inet *address)
{
	static const unsigned char prefix[12] = {[10] = 0xff,[11] = 0xff};

	return ip_family(address) == PGSQL_AF_INET6 &&
		memcmp(ip_addr(address), prefix, sizeof(prefix)) == 0;
}

text *
poll_client_network(inet *address)
{
	inet	   *host = palloc0(sizeof(inet));
	Datum		network;

	ip_family(host) = ip_family(address);
	if (is_mapped_ipv4(address))
	{
		ip_family(host) = PGSQL_AF_INET;
		memcpy(ip_addr(host), ip_addr(address) + 12, 4);
	}
	else
		memcpy(ip_addr(host), ip_addr(address), ip_addrsize(address));
	ip_bits(host) = ip_family(host) == PGSQL_AF_INET ? poll_client_ipv4_prefix :
		poll_client_ipv6_prefix;
	SET_INET_VARSIZE(host);

	network = DirectFunctionCall1(network_network, InetPGetDatum(host));
	return cstring_to_text(DatumGetCString(DirectFunctionCall1(cidr_out, network)));
}

/* poll.client_network(address inet) returns text */
Datum
poll_ext_client_network(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(poll_client_network(PG_GETARG_INET_PP(0)));
}
