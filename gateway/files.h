/*
 * files.h
 *		Static files.
 */
#ifndef FILES_H
#define FILES_H

#include <stdbool.h>

#include "answer.h"

/* Reads a folder. Ends the program if it cannot. */
extern void files_read(const char *folder);

/*
 * The file of that path, or that the client has it already, by the value of its
 * If-None-Match (or NULL). False: there is none.
 */
extern bool files_answer(const char *path, const char *if_none_match, Answer *answer);

#endif							/* FILES_H */
