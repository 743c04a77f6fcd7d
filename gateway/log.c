/*
 * log.c
 *		What a program says, on standard error.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

/* In one write, since threads may speak at the same time. */
static void
say_list(const char *format, va_list list)
{
	char		line[4096];
	size_t		length;

	vsnprintf(line, sizeof(line), format, list);
	length = strlen(line);
	while (length > 0 && line[length - 1] == '\n')
		line[--length] = '\0';
	/* one line, also of libpq's messages, and nothing that a terminal obeys */
	for (char *c = line; *c; c++)
		if ((unsigned char) *c < ' ' || *c == 127)
			*c = ' ';
	fprintf(stderr, PROGRAM ": %s\n", line);
}

void
say(const char *format,...)
{
	va_list		list;

	va_start(list, format);
	say_list(format, list);
	va_end(list);
}

void
die(const char *format,...)
{
	va_list		list;

	va_start(list, format);
	say_list(format, list);
	va_end(list);
	exit(1);
}
