/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* What the service gave a signed-in user; all strings are overwritten when it is freed. */
typedef struct
{
  char *user_id;
  char *service_token;
  char *ssecurity; /* base64 */
  char *region;    /* "cn", "de", ... */
} CloudSession;

/*
 * Reads a key file `[session] UserId= ServiceToken= SSecurity= Region=`.
 *
 * Returns: (transfer full) (nullable): CLOUD_ERROR_BAD_SESSION if it is absent, no regular file,
 * may be read or written by others, or lacks something; CLOUD_ERROR_WRONG_REGION for a region that
 * the service does not have.
 */
CloudSession *cloud_session_load (const char *path, GError **error);
void cloud_session_free (CloudSession *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CloudSession, cloud_session_free)

/* (transfer full): "https://de.api.io.mi.com" (protocol/registration.md section 6) */
char *cloud_session_dup_base_url (const CloudSession *self);

G_END_DECLS
