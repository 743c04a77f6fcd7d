/*
 * client.c
 *		Who a client is.
 *
 * Rate limits need to know, and so the client must not be able to choose. If a
 * proxy says who it is, by a header that it sets itself, that is it. Otherwise
 * it is the address: the peer's, or with n proxies in front the n-th from the
 * end of X-Forwarded-For, to which each of them has appended whom it serves. What
 * is further left, anybody can have written.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "options.h"

typedef struct HeaderList
{
	const char *name;
	char	   *values;
} HeaderList;

static enum MHD_Result
append_header(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	HeaderList *list = arg;
	size_t		length;
	char	   *values;

	if (strcasecmp(name, list->name) != 0 || value == NULL)
		return MHD_YES;
	length = list->values ? strlen(list->values) : 0;
	values = realloc(list->values, length + strlen(value) + 2);
	if (values == NULL)
		return MHD_NO;
	list->values = values;
	if (length > 0)
		values[length++] = ',';
	strcpy(values + length, value);
	return MHD_YES;
}

char *
client_header_list(struct MHD_Connection *connection, const char *name)
{
	HeaderList	list = {.name = name};

	MHD_get_connection_values(connection, MHD_HEADER_KIND, append_header, &list);
	return list.values;
}

/* Is it an address?  A port, and the brackets of IPv6 with one, are cut off. */
static bool
clean_address(char *address)
{
	unsigned char buffer[sizeof(struct in6_addr)];
	size_t		length;

	address[strcspn(address, "%")] = '\0';
	if (*address == '[')
	{
		length = strcspn(address + 1, "]");
		memmove(address, address + 1, length);
		address[length] = '\0';
	}
	else if (strchr(address, '.') != NULL && strchr(address, ':') == strrchr(address, ':'))
		address[strcspn(address, ":")] = '\0';
	return inet_pton(AF_INET, address, buffer) == 1 || inet_pton(AF_INET6, address, buffer) == 1;
}

/* The n-th of the list, from the end, without blanks; or NULL. It cuts the list. */
static char *
nth_from_end(char *list, int n)
{
	for (;;)
	{
		char	   *comma = strrchr(list, ',');
		char	   *start = comma ? comma + 1 : list;

		if (--n == 0)
		{
			start += strspn(start, " \t");
			start[strcspn(start, " \t")] = '\0';
			return start;
		}
		if (comma == NULL)
			return NULL;
		*comma = '\0';
	}
}

static void
peer_address(struct MHD_Connection *connection, char *host, size_t size)
{
	const struct sockaddr *address =
	MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
	socklen_t	length = address->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);

	if (getnameinfo(address, length, host, size, NULL, 0, NI_NUMERICHOST) != 0)
		*host = '\0';
	host[strcspn(host, "%")] = '\0';
}

void
client_identify(struct MHD_Connection *connection, json_t * request)
{
	char		host[NI_MAXHOST];
	char	   *forwarded;
	char	   *address = NULL;

	if (options.client_header != NULL)
	{
		const char *client = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, options.client_header);

		if (client != NULL && *client != '\0' && json_object_set_new(request, "client", json_string(client)) == 0)
			return;
	}
	forwarded = options.trusted_proxies > 0 ? client_header_list(connection, "X-Forwarded-For") : NULL;
	if (forwarded != NULL)
		address = nth_from_end(forwarded, options.trusted_proxies);
	if (address == NULL || !clean_address(address))
	{
		peer_address(connection, host, sizeof(host));
		address = host;
	}
	json_object_set_new(request, "address", json_string(address));
	free(forwarded);
}
