/* command.h: the subcommands, generated from commands.def. */
#ifndef GEUL_COMMAND_H
#define GEUL_COMMAND_H

/* Runs one subcommand; argv[0] is its name. Returns the exit code: 0, 1 after a message, 2 for wrong usage. */
#define COMMAND(id, summary) int geul_cmd_##id(int argc, char **argv);
#include "command/commands.def"
#undef COMMAND

#endif
