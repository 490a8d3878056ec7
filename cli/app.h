/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mitherm-dbus.h"

G_BEGIN_DECLS

/* Exit statuses (mithermctl(1), "EXIT STATUS"). */
typedef enum
{
  EXIT_DONE = 0,
  EXIT_FAILED = 1,
  EXIT_USAGE = 2,
  EXIT_NOT_FOUND = 3,
  EXIT_REFUSED = 4,
  EXIT_CANCELLED = 5,
} ExitStatus;

/* What every command gets: the bus, the tree of objects, how to print. */
typedef struct
{
  char *bus;
  gboolean json;
  int wait_s; /* how long an unknown device is waited for */
  GDBusConnection *connection;
  GDBusObjectManager *objects;
} App;

typedef struct
{
  const char *name;
  const char *arguments; /* for the usage line */
  const char *summary;
  const char *description;
  ExitStatus (*run) (App *app, int argc, char **argv);
} Command;

extern const Command cmd_activate, cmd_cancel, cmd_catalog, cmd_clock, cmd_image, cmd_info,
    cmd_jobs, cmd_keys, cmd_list, cmd_login, cmd_monitor, cmd_plan, cmd_update;

/**
 * app_parse:
 * @entries: (nullable): the command's own options
 *
 * Parses a command's options; prints the command's help or what is wrong and leaves the program
 * (status 0 or 2). @argv keeps the command's name and the arguments.
 */
void app_parse (App *app, const Command *command, const GOptionEntry *entries, int *argc,
                char ***argv);

/* Says on stderr what is wrong with the command line. Returns: %EXIT_USAGE */
ExitStatus app_usage (const Command *command, const char *format, ...) G_GNUC_PRINTF (2, 3);

/**
 * app_connect:
 *
 * Connects to the bus and to the daemon and reads the tree. Prints what is wrong and what to do.
 */
gboolean app_connect (App *app, ExitStatus *status);

/**
 * app_find_device:
 * @name: (nullable): address, unique name, or NULL for the only one
 *
 * Returns: (transfer full) (nullable): the device; else @status is set and the reason printed
 */
MithermDBusDevice1 *app_find_device (App *app, const char *name, ExitStatus *status);

/* Waits until a thermometer is known, if --wait was given. */
void app_wait_for_any (App *app);

MithermDBusManager1 *app_get_manager (App *app, ExitStatus *status);

/* Prints an error of a call. Returns: the exit status that goes with it. */
ExitStatus app_report (App *app, GError *error);

/**
 * app_exit_status:
 * @late: the error is a job's, not the call's
 */
ExitStatus app_exit_status (const char *error_name, gboolean late);

/* Watches a job to its end and prints it. */
ExitStatus app_follow_job (App *app, const char *path);
/* The same; if @detach it only prints which job it is. */
ExitStatus app_take_job (App *app, const char *path, gboolean detach);

/* Opens @path (or stdin for "-", copied into memory) for passing on. Returns: -1 after printing
 * why. */
int app_open_file (const char *path, ExitStatus *status);

G_END_DECLS
