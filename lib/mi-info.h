/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-procedure.h"

G_BEGIN_DECLS

/**
 * MiDeviceInfo:
 * @auth_version: 1, 2 or 3 (protocol/registration.md section 1)
 * @io_capability: out-of-band methods, 0 on thermometers
 * @did: valid if @has_did, as on the wire. A DID does not mean that the device is bound.
 */
typedef struct
{
  guint16 auth_version;
  guint16 io_capability;
  gboolean has_did;
  guint8 did[MI_DID_LEN];
} MiDeviceInfo;

/**
 * mi_device_info_parse:
 * @data: payload of the device-info message, 4 or 24 bytes; other lengths >= 4 are taken leniently
 *   (version and capability only)
 */
gboolean mi_device_info_parse (const guint8 *data, gsize len, MiDeviceInfo *out, GError **error);

/**
 * mi_did_to_text:
 * Returns: (transfer full): the DID without its zero bytes; non-printable bytes as '?'
 */
char *mi_did_to_text (const guint8 did[MI_DID_LEN]);

/**
 * mi_did_from_text:
 * @text: at most 20 characters; padded with zeros on the left
 */
gboolean mi_did_from_text (const char *text, guint8 did[MI_DID_LEN]);

/**
 * mi_info_new:
 * @sizes: borrowed, of this connection
 * @explore: try the size exploration (opcode A4) first, if none was tried on this connection
 *
 * Reads the device information (opcode A2, 10 s). Fails with %MI_ERROR_TIMEOUT,
 * %MI_ERROR_PROTOCOL, %MI_ERROR_TRANSFER, %MI_ERROR_LINK_LOST.
 */
MiProcedure *mi_info_new (MiSizes *sizes, gboolean explore);

/* After DONE. */
const MiDeviceInfo *mi_info_get_result (MiProcedure *self);

G_END_DECLS
