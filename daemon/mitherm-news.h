/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mitherm-device.h"

G_BEGIN_DECLS

/*
 * When changed properties are signalled. What jobs and users change, at once; what the air changes,
 * at most once a second for one thermometer and MITHERM_NEWS_PER_SECOND times for all together:
 * the more there are, the more seldom each, so that the cost of an advertisement does not grow.
 */
typedef struct _MithermNews MithermNews;

#define MITHERM_NEWS_PER_SECOND 50

MithermNews *mitherm_news_new (void);
void mitherm_news_free (MithermNews *self);

/* mitherm_device_emit() from the main loop. */
void mitherm_news_soon (MithermNews *self, MithermDevice *device);
/* mitherm_device_flush(), now or when it is @device's turn. */
void mitherm_news_later (MithermNews *self, MithermDevice *device);
/* @device goes. */
void mitherm_news_forget (MithermNews *self, MithermDevice *device);
/* Nothing is signalled any more. */
void mitherm_news_stop (MithermNews *self);

G_END_DECLS
