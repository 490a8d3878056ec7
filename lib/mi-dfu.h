/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-procedure.h"

G_BEGIN_DECLS

/**
 * mi_dfu_new:
 * @sizes: borrowed, of this connection (an exploration on 0x0019 covers 0x0018, too)
 * @image: borrowed for the procedure's life
 * @delay_s: parameter of the switch command; 0: at once after the disconnection
 *
 * mible DFU of a logged-in device (protocol/ota-mible.md section 3), up to the verification's
 * success and our own disconnection, after which the device switches. A status other than 0 is
 * %MI_ERROR_DFU with "command N status M" in its text.
 */
MiProcedure *mi_dfu_new (MiSizes *sizes, const guint8 *image, gsize len, guint32 delay_s);

guint16 mi_dfu_get_protocol (MiProcedure *self);
guint32 mi_dfu_get_fragments (MiProcedure *self);
guint32 mi_dfu_get_first (MiProcedure *self); /* first fragment sent, 1 unless resumed */
gboolean mi_dfu_verified (MiProcedure *self);
guint8 mi_dfu_get_status (MiProcedure *self);
const char *mi_dfu_status_text (guint16 protocol, guint8 status);

G_END_DECLS
