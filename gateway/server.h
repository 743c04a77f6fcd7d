/*
 * server.h
 *		The HTTP side: connections of clients and their requests.
 */
#ifndef SERVER_H
#define SERVER_H

#include <stdbool.h>

#include "request.h"

/* Listens, and says where. Ends the program if it cannot. */
extern void server_start(void);

/* Does what is to be done, and returns how long it can wait then, in ms. */
extern int	server_run(void);

/* To be called several times a second: closes what takes too long. */
extern void server_tick(void);

/* How many connections are open. */
extern int	server_clients(void);

/* The database has a request, and has answered it. */
extern void server_suspend(Request *request);
extern void server_answered(Request *request);

/* While the request waits: if its client hangs up, or has, this is called. */
extern void server_await_hangup(Request *request, void (*hung_up) (Request *request));
extern void server_ignore_hangup(Request *request);

/* Takes no more connections; and whether there are requests still. */
extern void server_quiesce(void);
extern bool server_is_busy(void);

extern void server_stop(void);

#endif							/* SERVER_H */
