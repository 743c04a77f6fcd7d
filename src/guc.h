/*
 * guc.h
 *		The settings.
 */
#ifndef POLL_GUC_H
#define POLL_GUC_H

extern PGDLLIMPORT char *poll_cache_claims;
extern PGDLLIMPORT int poll_cache_size; /* kB */
extern PGDLLIMPORT int poll_cache_ttl;	/* ms */
extern PGDLLIMPORT int poll_client_ipv4_prefix;
extern PGDLLIMPORT int poll_client_ipv6_prefix;
extern PGDLLIMPORT char *poll_cors_origin;
extern PGDLLIMPORT double poll_debug_rate_clock;
extern PGDLLIMPORT int poll_max_interval;	/* ms */
extern PGDLLIMPORT int poll_max_scan;
extern PGDLLIMPORT int poll_min_interval;	/* ms */
extern PGDLLIMPORT int poll_poll_cost;	/* ms */
extern PGDLLIMPORT int poll_public_max_age; /* seconds; 0 = private */
extern PGDLLIMPORT int poll_rate_entries;
extern PGDLLIMPORT int poll_retention;	/* seconds */
extern PGDLLIMPORT int poll_rotate_size;	/* kB; 0 = no bound */

/* Called by _PG_init(). */
extern void poll_guc_install(void);

#endif							/* POLL_GUC_H */
