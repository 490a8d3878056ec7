/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-error.h"

/* It would take the name's hyphens for minus signs. */
/* clang-format off */
G_DEFINE_QUARK (mi-error-quark, mi_error)
/* clang-format on */
