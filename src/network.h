/*
 * network.h
 *		Which network a client is.
 */
#ifndef POLL_NETWORK_H
#define POLL_NETWORK_H

#include "utils/inet.h"

/* The network of an address, by the settings for clients, as text. */
extern text *poll_client_network(inet *address);

#endif							/* POLL_NETWORK_H */
