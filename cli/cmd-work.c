/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The commands that start a job on one thermometer. */
#include "config.h"

#include "agent.h"
#include "app.h"
#include "images.h"

#include <gio/gunixfdlist.h>
#include <unistd.h>

#define CALL_FLAGS G_DBUS_CALL_FLAGS_ALLOW_INTERACTIVE_AUTHORIZATION

#define DEV_HELP "DEV is an address, a unique name, or nothing when there is only one.\n"

static gboolean detach;
#define DETACH_ENTRY                                                                               \
  {                                                                                                \
    "detach", 'd', 0, G_OPTION_ARG_NONE, &detach, "Print the job and do not wait for it", NULL     \
  }

#define CREDENTIAL_ENTRY(command)                                                                  \
  {                                                                                                \
    "credential-command", 0, 0, G_OPTION_ARG_STRING, command,                                      \
        "Program that brings the credential for firmware 2.1.1 and later (mitherm-cloud)", "CMD"   \
  }
#define DETACHED_AGENT                                                                             \
  "--credential-command does not go with --detach: the command is run from here"

static ExitStatus
follow (App *app, gboolean called, const char *job, GError *error)
{
  return called ? app_take_job (app, job, detach) : app_report (app, error);
}

static ExitStatus
run_activate (App *app, int argc, char **argv)
{
  gboolean force = FALSE;
  int timeout_s = 0;
  g_autofree char *command = NULL;
  const GOptionEntry entries[]
      = { { "force", 'f', 0, G_OPTION_ARG_NONE, &force,
            "Register although it is bound or keys are stored", NULL },
          { "timeout", 't', 0, G_OPTION_ARG_INT, &timeout_s, "Give up after that long", "SECONDS" },
          CREDENTIAL_ENTRY (&command),
          DETACH_ENTRY,
          G_OPTION_ENTRY_NULL };
  g_autoptr (MithermDBusDevice1) device = NULL;
  g_autoptr (Agent) agent = NULL;
  g_autofree char *job = NULL;
  g_autoptr (GError) error = NULL;
  g_auto (GVariantDict) options = G_VARIANT_DICT_INIT (NULL);
  ExitStatus status;
  gboolean called;

  app_parse (app, &cmd_activate, entries, &argc, &argv);
  if (argc > 2 || timeout_s < 0)
    return app_usage (&cmd_activate, argc > 2 ? "activate takes one thermometer at most"
                                              : "--timeout is negative");
  if (command != NULL && detach)
    return app_usage (&cmd_activate, DETACHED_AGENT);
  device = app_find_device (app, argc > 1 ? argv[1] : NULL, &status);
  if (device == NULL || (command != NULL && (agent = agent_new (app, command, &status)) == NULL))
    return status;
  if (force)
    g_variant_dict_insert (&options, "force", "b", TRUE);
  if (timeout_s > 0)
    g_variant_dict_insert (&options, "timeout", "u", (guint) timeout_s);
  called = mitherm_dbus_device1_call_activate_sync (device, g_variant_dict_end (&options),
                                                    CALL_FLAGS, -1, &job, NULL, &error);
  return follow (app, called, job, error);
}

const Command cmd_activate
    = { "activate", "[DEV]", "register a thermometer and keep its keys",
        DEV_HELP
        "The new keys are on disk before the thermometer can accept them. It leaves the vendor's\n"
        "app: --force is needed where it is bound already.\n"
        "Firmware 2.1.1 and later wants a credential of the vendor's server: CMD gets the request\n"
        "as JSON on its standard input and writes the answer to its standard output. It is split\n"
        "into words as a shell would, but run without one.",
        run_activate };

static ExitStatus
run_login (App *app, int argc, char **argv)
{
  gboolean passive = FALSE;
  const GOptionEntry entries[] = { { "passive", 'p', 0, G_OPTION_ARG_NONE, &passive,
                                     "Only check the bind key on advertisements", NULL },
                                   DETACH_ENTRY,
                                   G_OPTION_ENTRY_NULL };
  g_autoptr (MithermDBusDevice1) device = NULL;
  g_autofree char *job = NULL;
  g_autoptr (GError) error = NULL;
  g_auto (GVariantDict) options = G_VARIANT_DICT_INIT (NULL);
  ExitStatus status;
  gboolean called;

  app_parse (app, &cmd_login, entries, &argc, &argv);
  if (argc > 2)
    return app_usage (&cmd_login, "login takes one thermometer at most");
  device = app_find_device (app, argc > 1 ? argv[1] : NULL, &status);
  if (device == NULL)
    return status;
  if (passive)
    g_variant_dict_insert (&options, "passive", "b", TRUE);
  called = mitherm_dbus_device1_call_login_sync (device, g_variant_dict_end (&options), CALL_FLAGS,
                                                 -1, &job, NULL, &error);
  return follow (app, called, job, error);
}

const Command cmd_login
    = { "login", "[DEV]", "prove the stored keys of a thermometer",
        DEV_HELP "Tries the current keys, then older ones, and keeps the set that works.",
        run_login };

/* The options of update, as given. */
typedef struct
{
  gboolean activate;
  char *expect_version;
  char *accept;
  char *envelope;
  char *command;
  int window;
  char *transport;
} UpdateOptions;

static void
add_update_options (GVariantDict *options, const UpdateOptions *given)
{
  if (given->activate)
    g_variant_dict_insert (options, "activate", "b", TRUE);
  if (given->expect_version != NULL)
    g_variant_dict_insert (options, "expect-version", "s", given->expect_version);
  if (given->accept != NULL)
    {
      g_auto (GStrv) risks = g_strsplit (given->accept, ",", -1);
      g_variant_dict_insert (options, "accept", "^as", risks);
    }
  if (given->window > 0)
    g_variant_dict_insert (options, "window", "u", (guint) given->window);
  if (given->transport != NULL)
    g_variant_dict_insert (options, "transport", "s", given->transport);
}

/* The first image is the call's argument, those after it are an option. */
static void
add_images (GVariantDict *options, GVariant *images)
{
  GVariantBuilder more;

  if (g_variant_n_children (images) < 2)
    return;
  g_variant_builder_init (&more, G_VARIANT_TYPE ("ah"));
  for (gsize i = 1; i < g_variant_n_children (images); i++)
    {
      g_autoptr (GVariant) image = g_variant_get_child_value (images, i);

      g_variant_builder_add_value (&more, image);
    }
  g_variant_dict_insert_value (options, "images", g_variant_builder_end (&more));
}

static ExitStatus
update_device (App *app, const char *name, char **paths, int n_paths, const UpdateOptions *given)
{
  g_autoptr (GUnixFDList) fds = g_unix_fd_list_new ();
  g_autoptr (MithermDBusDevice1) device = NULL;
  g_autoptr (GVariant) images = NULL;
  g_autoptr (GVariant) first = NULL;
  g_autoptr (Agent) agent = NULL;
  g_auto (GVariantDict) options = G_VARIANT_DICT_INIT (NULL);
  g_autofree char *job = NULL;
  g_autoptr (GError) error = NULL;
  ExitStatus status;
  gboolean called;

  images = images_open (fds, paths, n_paths, &status);
  if (images == NULL || !images_add_file (fds, &options, "envelope", given->envelope, &status))
    return status;
  add_update_options (&options, given);
  add_images (&options, images);
  device = app_find_device (app, name, &status);
  if (device == NULL
      || (given->command != NULL && (agent = agent_new (app, given->command, &status)) == NULL))
    return status;
  first = g_variant_get_child_value (images, 0);
  called = mitherm_dbus_device1_call_update_sync (device, first, g_variant_dict_end (&options),
                                                  CALL_FLAGS, -1, fds, &job, NULL, NULL, &error);
  return follow (app, called, job, error);
}

static ExitStatus
check_and_update (App *app, int argc, char **argv, const UpdateOptions *given)
{
  int first = argc > 2 ? 2 : 1;

  if (argc < 2 || argc - first > IMAGES_MAX)
    return app_usage (&cmd_update, "update takes a thermometer and one to eight images");
  if (given->window < 0)
    return app_usage (&cmd_update, "--window is negative");
  if (given->command != NULL && detach)
    return app_usage (&cmd_update, DETACHED_AGENT);
  return update_device (app, argc > 2 ? argv[1] : NULL, argv + first, argc - first, given);
}

static ExitStatus
run_update (App *app, int argc, char **argv)
{
  UpdateOptions given = { 0 };
  const GOptionEntry entries[] = {
    { "activate", 'a', 0, G_OPTION_ARG_NONE, &given.activate, "Register first if it is not bound",
      NULL },
    EXPECT_ENTRY (&given.expect_version),
    { "accept", 0, 0, G_OPTION_ARG_STRING, &given.accept,
      "Risks taken: wrong-hardware, unsigned, battery-low, unknown-version, downgrade",
      "RISK,..." },
    ENVELOPE_ENTRY (&given.envelope),
    CREDENTIAL_ENTRY (&given.command),
    { "window", 0, 0, G_OPTION_ARG_INT, &given.window, "Blocks between two reads (8)", "BLOCKS" },
    { "transport", 0, 0, G_OPTION_ARG_STRING, &given.transport, "auto, telink or mible", "NAME" },
    DETACH_ENTRY,
    G_OPTION_ENTRY_NULL
  };
  ExitStatus status;

  app_parse (app, &cmd_update, entries, &argc, &argv);
  status = check_and_update (app, argc, argv, &given);
  g_free (given.expect_version);
  g_free (given.accept);
  g_free (given.envelope);
  g_free (given.command);
  g_free (given.transport);
  return status;
}

const Command cmd_update
    = { "update", "[DEV] IMAGE...", "send firmware to a thermometer",
        DEV_HELP
        "Done means that the new version has answered after the restart. Whatever cannot be\n"
        "checked before the first byte is refused unless its risk is named by --accept. Several\n"
        "images are several hops of one job, in the order that plan tells; DEV is needed then.",
        run_update };
