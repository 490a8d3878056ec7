/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "app.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

static const Command *const commands[] = {
  &cmd_list,  &cmd_info, &cmd_monitor, &cmd_activate, &cmd_login, &cmd_update,  &cmd_plan,
  &cmd_image, &cmd_keys, &cmd_jobs,    &cmd_cancel,   &cmd_clock, &cmd_catalog,
};

static void
print_help (FILE *out)
{
  fprintf (out,
           "Usage: mithermctl [--bus=BUS] [--json] [--wait=SECONDS] COMMAND [ARGUMENT...]\n\n"
           "Activates, logs in to and updates the Mi thermometers around, through mithermd.\n\n");
  for (gsize i = 0; i < G_N_ELEMENTS (commands); i++)
    fprintf (out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
  fprintf (out, "\nFor example:\n"
                "  mithermctl list\n"
                "  mithermctl activate A4:C1:38:00:00:01\n"
                "  mithermctl update A4:C1:38:00:00:01 ATC_v58.bin\n\n"
                "mithermctl COMMAND --help tells more; the manual is mithermctl(1).\n"
                "Exit status: 0 done, 1 failed, 2 usage, 3 no such thermometer, job or daemon,\n"
                "4 refused, 5 cancelled.\n");
}

static const Command *
find_command (const char *name)
{
  for (gsize i = 0; i < G_N_ELEMENTS (commands); i++)
    if (g_str_equal (commands[i]->name, name))
      return commands[i];
  return NULL;
}

static ExitStatus
run_command (App *app, int argc, char **argv)
{
  const Command *command = find_command (argv[0]);

  if (command != NULL)
    return command->run (app, argc, argv);
  fprintf (stderr, "mithermctl: no command \"%s\"\nTry: mithermctl --help\n", argv[0]);
  return EXIT_USAGE;
}

int
main (int argc, char **argv)
{
  App app = { 0 };
  gboolean help = FALSE, version = FALSE;
  const GOptionEntry entries[] = { { "help", 'h', 0, G_OPTION_ARG_NONE, &help, NULL, NULL },
                                   { "version", 0, 0, G_OPTION_ARG_NONE, &version, NULL, NULL },
                                   { "bus", 'b', 0, G_OPTION_ARG_STRING, &app.bus, NULL, NULL },
                                   { "json", 'j', 0, G_OPTION_ARG_NONE, &app.json, NULL, NULL },
                                   { "wait", 'w', 0, G_OPTION_ARG_INT, &app.wait_s, NULL, NULL },
                                   G_OPTION_ENTRY_NULL };
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GError) error = NULL;
  ExitStatus status;

  setlocale (LC_ALL, "");
  g_set_prgname ("mithermctl");
  g_option_context_add_main_entries (context, entries, NULL);
  g_option_context_set_help_enabled (context, FALSE);
  /* What follows the command's name belongs to the command. */
  g_option_context_set_strict_posix (context, TRUE);
  if (!g_option_context_parse (context, &argc, &argv, &error))
    {
      fprintf (stderr, "mithermctl: %s\nTry: mithermctl --help\n", error->message);
      return EXIT_USAGE;
    }
  if (help || version || argc < 2)
    {
      if (version)
        printf ("mithermctl %s\n", MITHERM_VERSION);
      else
        print_help (help ? stdout : stderr);
      return help || version ? EXIT_DONE : EXIT_USAGE;
    }
  status = run_command (&app, argc - 1, argv + 1);
  g_clear_object (&app.objects);
  g_clear_object (&app.connection);
  g_free (app.bus);
  return (int) status;
}
