/*
 * options.h
 *		The command line.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#define MAX_FUNCTIONS	64

typedef struct Options
{
	const char *conninfo;
	int			connections;
	const char *listen;
	const char *static_folder;	/* or NULL */
	const char *functions[MAX_FUNCTIONS];	/* schema.name */
	int			function_count;
	const char *client_header;	/* or NULL */
	int			trusted_proxies;
	int			max_clients;
	int			max_body;		/* bytes */
	int			max_headers;	/* bytes */
	int			max_sending;	/* MB */
	int			max_wait;		/* ms */
	int			timeout;		/* ms */
	int			client_timeout; /* ms */
} Options;

extern Options options;

/* Ends the program if there is an error, or only help was asked for. */
extern void options_read(int argc, char **argv);

#endif							/* OPTIONS_H */
