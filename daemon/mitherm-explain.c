/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include <string.h>

#include "mitherm-job-private.h"

/*
 * The sentences of Job1.ErrorMessage: what happened, in which state the thermometer is now, and
 * what to do next. libmi's own texts are fragments; here they become sentences.
 */

static char *
sentence (const char *text)
{
  g_autofree char *copy = g_strdup (text);
  gsize len = strlen (g_strchomp (copy));
  char *result;

  result = g_strconcat (copy, len > 0 && strchr (".!?", copy[len - 1]) != NULL ? "" : ".", NULL);
  result[0] = g_ascii_toupper (result[0]);
  return result;
}

static const char *
state_now (MithermJob *self, const GError *error)
{
  if (self->ota_ended)
    {
      if (error->code == MITHERM_ERROR_NOT_UPDATED)
        return "The thermometer runs a firmware other than the one sent.";
      return "The whole image was sent; which firmware the thermometer runs now is not known.";
    }
  if (self->ota_started)
    return "The thermometer runs its old firmware; the incomplete upload cannot start.";
  if (self->pending_written)
    return "Whether the thermometer holds its new keys is not known; they are safe on disk, and so "
           "are the old ones.";
  if (self->registered)
    return "The thermometer is activated, and its keys are stored.";
  return "The thermometer is as before.";
}

static const char *
next_after_upload (const GError *error)
{
  if (error->code == MITHERM_ERROR_NOT_UPDATED)
    return "Check that the image is for this thermometer and signed if it demands that, then "
           "update "
           "again.";
  return "Take its battery out and put it in again, then read its version with info.";
}

static const char *
next_by_code (const GError *error)
{
  switch ((MithermError) error->code)
    {
    case MITHERM_ERROR_ALREADY_BOUND:
      return "Log in with its keys, or reset it with its button and activate again.";
    case MITHERM_ERROR_AUTH_FAILED:
      return "Import the right keys, or activate with force to make new ones.";
    case MITHERM_ERROR_BAD_IMAGE:
      return "Take another image.";
    case MITHERM_ERROR_BATTERY_LOW:
      return "Change the battery, or accept the risk battery-low.";
    case MITHERM_ERROR_BUSY:
      return "Try again in a moment.";
    case MITHERM_ERROR_CANCELLED:
      return "Start the job again whenever you like.";
    case MITHERM_ERROR_CREDENTIAL_REFUSED:
      return "Check the account and the agent that the credential comes from, then activate again.";
    case MITHERM_ERROR_LINK_LOST:
    case MITHERM_ERROR_TIMEOUT:
      return "Bring it closer, check its battery, and try again.";
    case MITHERM_ERROR_NEEDS_CREDENTIAL:
      return "Its firmware is activated only with a credential of the vendor's server: register a "
             "credential agent (mithermctl activate --credential-command), or activate it with the "
             "vendor's app and import its token and bind key.";
    case MITHERM_ERROR_NO_KEYS:
      return "Activate it, or import its keys.";
    case MITHERM_ERROR_NOT_BOUND:
      return "Activate it first, with force where keys are stored (an update does so with the "
             "option "
             "activate).";
    case MITHERM_ERROR_NOT_FOUND:
      return "Check that it is near, and that a Bluetooth adapter is there and powered.";
    case MITHERM_ERROR_NOT_SIGNED:
      return "Take a signed image, give an envelope, or accept the risk unsigned.";
    case MITHERM_ERROR_STORAGE:
      return "Make room or repair the state directory, then try again.";
    case MITHERM_ERROR_UNSUPPORTED:
      return "This cannot be done with the firmware that runs now.";
    case MITHERM_ERROR_WRONG_HARDWARE:
      return "Take an image for this model, or accept the risk wrong-hardware.";
    case MITHERM_ERROR_INVALID_ARGS:
    case MITHERM_ERROR_NOT_AUTHORIZED:
    case MITHERM_ERROR_NOT_UPDATED:
    case MITHERM_ERROR_PROTOCOL:
    default:
      return "Try again; if it happens every time, report it with the log of the daemon.";
    }
}

static const char *
next_step (MithermJob *self, const GError *error)
{
  if (self->ota_ended)
    return next_after_upload (error);
  if (self->credential_error != NULL && error->code == MITHERM_ERROR_TIMEOUT)
    return "Let the agent be ready before, and activate again.";
  if (self->pending_written && error->code != MITHERM_ERROR_STORAGE)
    return "Log in to find out; nothing needs to be activated again before that.";
  return next_by_code (error);
}

char *
mitherm_job_explain (MithermJob *self, const GError *error)
{
  g_autofree char *what = sentence (error->message);

  return g_strjoin (" ", what, state_now (self, error), next_step (self, error), NULL);
}
