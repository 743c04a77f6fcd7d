/*
 * pgrst.h
 *		PostgREST: answers by its settings and errors.
 */
#ifndef POLL_PGRST_H
#define POLL_PGRST_H

/* Called by _PG_init. */
extern void poll_pgrst_install(void);

#endif							/* POLL_PGRST_H */
