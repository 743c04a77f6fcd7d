/*
 * output.h
 *		What goes out: changes and the cursor.
 */
#ifndef OUTPUT_H
#define OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

/* A change, as JSON texts; key, data and version may be NULL, and feed of a reset. */
typedef struct Change
{
	const char *feed;
	const char *op;
	const char *key;
	const char *data;
	const char *version;		/* microseconds since 1970 */
} Change;

/*
 * A page of lines, for standard output or the command.  output_end() returns whether
 * it was taken, and says so if the command has failed.  It ends the program if
 * standard output has, quietly if nobody reads that.
 */
extern void output_begin(void);
extern void output_change(const Change *change);
extern bool output_end(void);

/* Has whoever reads standard output gone? */
extern bool output_closed(void);

/* Rows of a full sync are on their way out; 0: no more. */
extern void output_progress(int rows);

/* The content of the cursor file, to be freed; NULL if there is none. */
extern char *cursor_load(void);

/* Replaces it, at once or not at all. */
extern void cursor_save(const char *cursor);

#endif							/* OUTPUT_H */
