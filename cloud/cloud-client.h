/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "cloud-message.h"
#include "cloud-session.h"

G_BEGIN_DECLS

/* Talks to the service over HTTPS: the certificate is always verified, no proxy is used, no
   redirect is followed, answers are limited in size, and everything ends by the deadline. */
typedef struct _CloudClient CloudClient;

/*
 * @base_url: (nullable): "https://HOST[:PORT]" instead of the region's host
 * @ca_file: (nullable): trust these authorities (PEM) instead of the system's
 * @deadline_us: on the monotonic clock of GLib
 * Returns: (transfer full) (nullable): CLOUD_ERROR_NETWORK if libcurl cannot be set up. The session
 * is borrowed and must live as long.
 */
CloudClient *cloud_client_new (const CloudSession *session, const char *base_url,
                               const char *ca_file, gint64 deadline_us, GError **error);
void cloud_client_free (CloudClient *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CloudClient, cloud_client_free)

/*
 * Asks for what the thermometer wants to see: a DID (its own is told where it has one), then the
 * signature. Blocks until then or the deadline.
 */
CloudCredential *cloud_client_fetch (CloudClient *self, const CloudRequest *request,
                                     GError **error);

/* (transfer full) (nullable): the scheme, host and port of an https address, without a path or with
   "/app" alone; NULL for everything else. */
char *cloud_base_url_parse (const char *text);

G_END_DECLS
