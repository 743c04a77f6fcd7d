/*
 * guc.h
 *		The settings.
 */
#ifndef POLL_GUC_H
#define POLL_GUC_H

extern PGDLLIMPORT int poll_max_scan;

/* Called by _PG_init(). */
extern void poll_guc_install(void);

#endif							/* POLL_GUC_H */
