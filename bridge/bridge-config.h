/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct
{
  char *host;
  guint16 port;
  gboolean tls;
  char *ca_file;  /* NULL: the system's authorities */
  char *user;     /* NULL: none */
  char *password; /* wiped when freed; NULL: none */
  char *prefix;   /* of Home Assistant's discovery */
} BridgeConfig;

/*
 * Reads the configuration and the file with user and password that it names (mitherm-mqtt(8)).
 * @path: NULL for the default file, which need not exist.
 * Errors: G_IO_ERROR, G_KEY_FILE_ERROR, G_FILE_ERROR with a text for people.
 */
BridgeConfig *bridge_config_load (const char *path, GError **error) G_GNUC_WARN_UNUSED_RESULT;

void bridge_config_free (BridgeConfig *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (BridgeConfig, bridge_config_free)

G_END_DECLS
