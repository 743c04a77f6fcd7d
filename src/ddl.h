/*
 * ddl.h
 *		What happens to a tracked table beside its rows changing.
 */
#ifndef POLL_DDL_H
#define POLL_DDL_H

/* Called by _PG_init(): registers the hook and the callback. */
extern void poll_ddl_install(void);

/*
 * The statement triggers of the feed on a table and its partitions.  Within
 * SPI.
 */
extern void poll_truncate_triggers_create(Oid relid, int64 feed, bool always);
extern void poll_truncate_triggers_drop(Oid relid, int64 feed);

#endif							/* POLL_DDL_H */
