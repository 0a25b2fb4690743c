"""The names of the requests of the protocol, by message id."""

from __future__ import annotations

from enum import IntEnum


class RequestType(IntEnum):
    """The requests, by the id with which their messages begin."""

    reqMktData = 1
    cancelMktData = 2
    placeOrder = 3
    cancelOrder = 4
    reqOpenOrders = 5
    reqAccountUpdates = 6
    reqExecutions = 7
    reqIds = 8
    reqContractDetails = 9
    reqMktDepth = 10
    cancelMktDepth = 11
    reqNewsBulletins = 12
    cancelNewsBulletins = 13
    setServerLogLevel = 14
    reqAutoOpenOrders = 15
    reqAllOpenOrders = 16
    reqManagedAccts = 17
    requestFA = 18
    replaceFA = 19
    reqHistoricalData = 20
    exerciseOptions = 21
    reqScannerSubscription = 22
    cancelScannerSubscription = 23
    reqScannerParameters = 24
    cancelHistoricalData = 25
    reqCurrentTime = 49
    reqRealTimeBars = 50
    cancelRealTimeBars = 51
    reqFundamentalData = 52
    cancelFundamentalData = 53
    calculateImpliedVolatility = 54
    calculateOptionPrice = 55
    cancelCalculateImpliedVolatility = 56
    cancelCalculateOptionPrice = 57
    reqGlobalCancel = 58
    reqMarketDataType = 59
    reqPositions = 61
    reqAccountSummary = 62
    cancelAccountSummary = 63
    cancelPositions = 64
    verifyRequest = 65
    verifyMessage = 66
    queryDisplayGroups = 67
    subscribeToGroupEvents = 68
    updateDisplayGroup = 69
    unsubscribeFromGroupEvents = 70
    startApi = 71
    verifyAndAuthRequest = 72
    verifyAndAuthMessage = 73
    reqPositionsMulti = 74
    cancelPositionsMulti = 75
    reqAccountUpdatesMulti = 76
    cancelAccountUpdatesMulti = 77
    reqSecDefOptParams = 78
    reqSoftDollarTiers = 79
    reqFamilyCodes = 80
    reqMatchingSymbols = 81
    reqMktDepthExchanges = 82
    reqSmartComponents = 83
    reqNewsArticle = 84
    reqNewsProviders = 85
    reqHistoricalNews = 86
    reqHeadTimeStamp = 87
    reqHistogramData = 88
    cancelHistogramData = 89
    cancelHeadTimeStamp = 90
    reqMarketRule = 91
    reqPnL = 92
    cancelPnL = 93
    reqPnLSingle = 94
    cancelPnLSingle = 95
    reqHistoricalTicks = 96
    reqTickByTickData = 97
    cancelTickByTickData = 98
    reqCompletedOrders = 99
    reqWshMetaData = 100
    cancelWshMetaData = 101
    reqWshEventData = 102
    cancelWshEventData = 103
    reqUserInfo = 104


NAMES = {request.value: request.name for request in RequestType}

# The requests that change orders; a simulated login is read-only and refuses them.
ORDER_REQUESTS = frozenset({"placeOrder", "cancelOrder", "exerciseOptions", "reqGlobalCancel"})
