/*
 * options.h
 *		The command line.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct Options
{
	const char *dbname;			/* or a connection string; these four: or NULL */
	const char *host;
	const char *port;
	const char *user;
	const char *const *feeds;
	int			feed_count;
	const char *scope;			/* JSON, or NULL */
	int			max_rows;
	bool		full;
	const char *since;			/* a time, or NULL */
	const char *cursor_file;	/* or NULL */
	bool		resync;
	bool		json;
	const char *command;		/* or NULL */
	bool		wait;			/* in the server, if it can */
	bool		wait_asked;		/* somebody has said so */
	double		interval;		/* seconds, as are these; 0: adaptive */
	double		min;
	double		max;
	bool		once;
	int64_t		count;			/* 0: without end */
	bool		quiet;
} Options;

extern Options options;

/* Ends the program if there is an error, or only help was asked for. */
extern void options_read(int argc, char **argv);

#endif							/* OPTIONS_H */
