/*
 * client.h
 *		Who a client is.
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <jansson.h>
#include <microhttpd.h>

/* All headers of that name, with commas between them, to free; or NULL. */
extern char *client_header_list(struct MHD_Connection *connection, const char *name);

/* Adds to the request for poll.respond() who asks: "client" or "address". */
extern void client_identify(struct MHD_Connection *connection, json_t * request);

#endif							/* CLIENT_H */
