/*
 * routes.h
 *		What there is under which path.
 */
#ifndef ROUTES_H
#define ROUTES_H

#include "request.h"

/* Opens what is behind them. */
extern void routes_start(void);

/*
 * Looks at a request whose headers are there; either answers it, or leaves it to
 * be run when its body is there.
 */
extern void routes_begin(Request *request, const char *method, const char *path);

/*
 * Runs it: answers it at once, or gives it to the database, which calls
 * server_answered().  The connection is suspended meanwhile.
 */
extern void routes_run(Request *request, const char *method);

#endif							/* ROUTES_H */
