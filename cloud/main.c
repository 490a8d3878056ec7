/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "cloud-client.h"
#include "cloud-error.h"
#include "cloud-message.h"
#include "cloud-session.h"

#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* The daemon waits 18 s from the start of the registration; much of it is gone when it asks. */
#define DEFAULT_TIMEOUT_S 18
#define MAX_TIMEOUT_S     600

enum
{
  EXIT_DONE = 0,
  EXIT_FAILED = 1,
  EXIT_USAGE = 2,
};

typedef struct
{
  char *session;
  char *ca_file;
  char *base_url;
  int timeout_s;
  gboolean version;
} Options;

static void
options_clear (Options *self)
{
  g_free (self->session);
  g_free (self->ca_file);
  g_free (self->base_url);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Options, options_clear)

static gboolean
check_options (Options *options, int n_left, GError **error)
{
  g_autofree char *given = g_steal_pointer (&options->base_url);

  if (n_left > 1)
    g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED, "no arguments but options");
  else if (options->timeout_s < 1 || options->timeout_s > MAX_TIMEOUT_S)
    g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "--timeout: 1 to %d seconds",
                 MAX_TIMEOUT_S);
  else if (given != NULL && (options->base_url = cloud_base_url_parse (given)) == NULL)
    g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                 "--base-url: must be https://HOST[:PORT]");
  else if (options->session == NULL && !options->version)
    g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "--session=FILE is needed");
  else
    return TRUE;
  return FALSE;
}

static gboolean
parse_options (Options *options, int argc, char **argv, GError **error)
{
  GOptionEntry entries[] = {
    { "session", 's', 0, G_OPTION_ARG_FILENAME, &options->session,
      "the account's session: key file, readable by you alone", "FILE" },
    { "ca-file", 0, 0, G_OPTION_ARG_FILENAME, &options->ca_file,
      "trust these authorities (PEM) instead of the system's", "FILE" },
    { "base-url", 0, 0, G_OPTION_ARG_STRING, &options->base_url,
      "ask this server instead of the region's (for tests)", "URL" },
    { "timeout", 0, 0, G_OPTION_ARG_INT, &options->timeout_s,
      "give up after that long (18), or earlier if the request says so", "SECONDS" },
    { "version", 0, 0, G_OPTION_ARG_NONE, &options->version, "print the version", NULL },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);

  g_option_context_add_main_entries (context, entries, NULL);
  g_option_context_set_summary (
      context, "Asks the vendor's service for the credential that firmware 2.1.1 and later wants "
               "for its registration.\nThe request is read as JSON from standard input, the answer "
               "goes to standard output.");
  return g_option_context_parse (context, &argc, &argv, error)
         && check_options (options, argc, error);
}

/* Waits for more of standard input; FALSE with an error at the deadline. */
static gboolean
wait_for_input (gint64 deadline_us, GError **error)
{
  struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };

  for (;;)
    {
      gint64 left_ms = (deadline_us - g_get_monotonic_time ()) / 1000;
      int n = left_ms <= 0 ? 0 : poll (&input, 1, (int) left_ms);

      if (n > 0)
        return TRUE;
      if (n < 0 && errno == EINTR)
        continue;
      g_set_error (error, CLOUD_ERROR, n == 0 ? CLOUD_ERROR_TIMEOUT : CLOUD_ERROR_BAD_REQUEST,
                   "the request did not come to its end on standard input");
      return FALSE;
    }
}

/* Reads standard input to its end into @buffer. */
static gboolean
read_input (char *buffer, gsize size, gsize *len, gint64 deadline_us, GError **error)
{
  gssize got;

  for (*len = 0; *len < size; *len += (gsize) got)
    {
      if (!wait_for_input (deadline_us, error))
        return FALSE;
      got = read (STDIN_FILENO, buffer + *len, size - *len);
      if (got == 0)
        return TRUE;
      if (got < 0 && errno != EINTR && errno != EAGAIN)
        {
          g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_REQUEST, "standard input: %s",
                       g_strerror (errno));
          return FALSE;
        }
      got = MAX (got, 0);
    }
  g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_REQUEST, "the request is too long");
  return FALSE;
}

static CloudRequest *
read_request (gint64 deadline_us, GError **error)
{
  char text[CLOUD_MAX_MESSAGE];
  CloudRequest *request = NULL;
  gsize len = 0;

  if (read_input (text, sizeof text, &len, deadline_us, error))
    request = cloud_request_parse (text, len, error);
  explicit_bzero (text, sizeof text);
  return request;
}

/* What a credential command holds is worth more than what root could do for it. */
static gboolean
check_user (const Options *options, GError **error)
{
  if (geteuid () != 0 || options->base_url != NULL)
    return TRUE;
  g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_NOT_PERMITTED,
               "mitherm-cloud talks to the internet and never runs as root: run it as the user who "
               "owns the session file");
  return FALSE;
}

static CloudCredential *
fetch (const Options *options, gint64 start_us, GError **error)
{
  gint64 deadline_us = start_us + options->timeout_s * G_USEC_PER_SEC;
  g_autoptr (CloudRequest) request = NULL;
  g_autoptr (CloudSession) session = NULL;
  g_autoptr (CloudClient) client = NULL;

  /* First, so that whoever writes it is not cut off. */
  if ((request = read_request (deadline_us, error)) == NULL || !check_user (options, error)
      || (session = cloud_session_load (options->session, error)) == NULL)
    return NULL;
  if (request->timeout_ms >= 0
      && request->timeout_ms < options->timeout_s * G_GINT64_CONSTANT (1000))
    deadline_us = start_us + request->timeout_ms * 1000;
  client = cloud_client_new (session, options->base_url, options->ca_file, deadline_us, error);
  return client == NULL ? NULL : cloud_client_fetch (client, request, error);
}

/* No copy of a secret may outlive the program. */
static void
keep_secrets_in_memory (void)
{
  const struct rlimit none = { 0, 0 };

  (void) setrlimit (RLIMIT_CORE, &none);
  /* The TLS library would write its keys to a file. */
  unsetenv ("SSLKEYLOGFILE");
}

int
main (int argc, char **argv)
{
  gint64 start_us = g_get_monotonic_time ();
  g_auto (Options) options = { .timeout_s = DEFAULT_TIMEOUT_S };
  g_autoptr (CloudCredential) credential = NULL;
  g_autoptr (GError) error = NULL;
  g_autofree char *answer = NULL;

  setlocale (LC_ALL, "");
  keep_secrets_in_memory ();
  if (!parse_options (&options, argc, argv, &error))
    {
      g_printerr ("mitherm-cloud: %s\n", error->message);
      return EXIT_USAGE;
    }
  if (options.version)
    {
      g_print ("mitherm-cloud %s\n", MITHERM_VERSION);
      return EXIT_DONE;
    }
  credential = fetch (&options, start_us, &error);
  answer = credential != NULL ? cloud_credential_to_json (credential) : cloud_error_to_json (error);
  if (printf ("%s\n", answer) < 0 || fflush (stdout) != 0)
    return EXIT_FAILED;
  return credential != NULL ? EXIT_DONE : EXIT_FAILED;
}
